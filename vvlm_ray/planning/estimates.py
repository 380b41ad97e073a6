"""What one trial, or one projector of stage 1, takes: FLOPs, tokens, memory, GPUs, seconds, bytes on disk.

Symbols: x_N lm_params, x_T num_frames, x_V tokens_per_frame, n num_examples, c(x) inference_flops (Wang et al. 2025,
Eq. 1). A throughput is what one slot (a GPU, or a CPU without GPUs) sustains in training, in FLOP/s: measured on
this study's finished trials if there are some, else stated, else the GPU's peak times the stated utilisation.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

from vvlm_ray.planning.gpus import DEFAULT_GPU, GPUS, Gpu, gpu_of
from vvlm_ray.planning.memory import Model, memory_bytes, model_of
from vvlm_ray.scaling.cost import inference_flops_parts, training_flops
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import read_records
from vvlm_ray.study.sections import Cost
from vvlm_ray.study.trials import Trial

CPU_TFLOPS = 0.05  # of a CPU slot in fp32, where nothing is stated
# Questions of the paper's benchmarks in lmms-eval 0.7.3 (Wang et al. 2025, Table 5); VCG counts its three parts.
QUESTIONS = {"VDC": 499, "AQA": 8000, "VCG": 3494, "LVB": 1337, "PT": 19_140, "MV": 4000, "VMME": 2700, "NQA": 8564}
UNKNOWN_QUESTIONS = 1000  # of a local benchmark whose file is not there yet
MIN_MEASURED = 3  # finished trials before their throughput replaces the stated one


class Estimator:
    """Estimates for one study; `measured_flops` replaces the stated throughput."""

    def __init__(self, study: Study, sweep_file: Path, folder: StudyFolder, measured_flops: float | None = None):
        self.study, self.sweep_file, self.folder = study, sweep_file, folder
        self.measured_flops = measured_flops
        self.model = lru_cache(maxsize=None)(self._model)

    def throughput(self, gpu: Gpu | None) -> float:
        """FLOP/s of one slot."""
        planning = self.study.planning
        if self.measured_flops:
            return self.measured_flops
        if planning.tflops_per_slot:
            return planning.tflops_per_slot * 1e12
        return (gpu.peak_tflops * planning.utilisation if gpu else CPU_TFLOPS) * 1e12

    def training_flops(self, trial: Trial) -> float:
        """3 c(x) n epochs; text apart."""
        return float(training_flops(trial.inference_flops, trial.num_examples, self.study.finetune.epochs))

    def text_flops(self, trial: Trial) -> float:
        """3 x 2 x_N per token of question and answer: what Eq. 1 leaves out of training, and time does not."""
        tokens = self.study.planning.text_tokens * trial.num_examples * self.study.finetune.epochs
        return 6.0 * (trial.lm_params or 0) * tokens

    def parts(self, trial: Trial) -> tuple[float | None, float | None]:
        """c(x) of the vision model and of the LM; None for a study with a cost of its own."""
        if not isinstance(self.study.cost, Cost):
            return None, None
        constants = self.study.cost.model_dump()
        vision, lm = inference_flops_parts(trial.lm_params, trial.num_frames, trial.tokens_per_frame, **constants)
        return float(vision), float(lm)

    def visual_tokens(self, trial: Trial) -> int:
        """x_T x_V n epochs."""
        frames, tokens = trial.num_frames or 0, trial.tokens_per_frame or 0
        return frames * tokens * trial.num_examples * self.study.finetune.epochs

    @cached_property
    def num_questions(self) -> int:
        """Questions of one evaluation."""
        e = self.study.evaluation
        counts = [self._local_questions(t) if t in e.local else QUESTIONS.get(t, UNKNOWN_QUESTIONS) for t in e.tasks]
        return sum(min(count, e.limit or count) for count in counts)

    def _local_questions(self, task: str) -> int:
        path = self.folder.resolve(self.study.evaluation.local[task].questions, self.sweep_file)
        try:
            with path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        except OSError:
            return self.study.synthetic.num_test if self.study.synthetic else UNKNOWN_QUESTIONS

    def seconds(self, trial: Trial, slots: float, gpu: Gpu | None) -> float:
        """Overhead, then training, text and evaluation FLOPs at the throughput, and a floor per question."""
        flops = self.training_flops(trial) + self.text_flops(trial) + self.num_questions * trial.inference_flops
        per_question = self.num_questions / (self.study.planning.questions_per_second * slots)
        return self.study.planning.overhead_seconds + flops / (self.throughput(gpu) * slots) + per_question

    def stage1_flops(self, backbone: str) -> float:
        """n (c_vision + 2 (c_LM + 2 x_N text)): frozen models, a backward pass through the LM alone."""
        s, spec = self.study.stage1, self.study.backbones[backbone]
        constants = self.study.cost.model_dump()
        vision, lm = inference_flops_parts(spec.lm_params, 1, s.tokens_per_frame, **constants)
        text = 2 * spec.lm_params * self.study.planning.text_tokens
        return float(vision + 2 * (lm + text)) * (s.num_examples or 0) * s.epochs

    def stage1_seconds(self, backbone: str, slots: float, gpu: Gpu | None) -> float:
        work = self.stage1_flops(backbone) / (self.throughput(gpu) * slots)
        return self.study.planning.overhead_seconds + work

    def _model(self, backbone: str) -> Model:
        spec = self.study.backbones[backbone]
        lm, vision = (self.folder.resolve(path, self.sweep_file) for path in (spec.lm, spec.vision))
        return model_of(spec.lm_params, lm, vision)

    def memory(self, trial: Trial, num_gpus: int) -> float:
        """Bytes of one GPU when the trial runs on so many."""
        per_worker = -(-self.study.finetune.batch_size // num_gpus)
        return memory_bytes(
            self.model(trial.backbone),
            trial.num_frames,
            trial.tokens_per_frame,
            num_gpus=num_gpus,
            micro_batch_size=min(self.study.resources.micro_batch_size or per_worker, per_worker),
            text_tokens=self.study.planning.text_tokens,
            resources=self.study.resources,
            is_bf16=self.study.finetune.precision == "bf16",
        )

    def stage1_memory(self, backbone: str, num_gpus: int) -> float:
        s = self.study.stage1
        per_worker = -(-s.batch_size // num_gpus)
        return memory_bytes(
            self.model(backbone),
            1,
            s.tokens_per_frame,
            num_gpus=num_gpus,
            micro_batch_size=min(self.study.resources.micro_batch_size or per_worker, per_worker),
            text_tokens=self.study.planning.text_tokens,
            resources=self.study.resources,
            is_bf16=s.precision == "bf16",
            trains_projector_only=True,
        )

    def checkpoint_bytes(self, trial: Trial) -> float:
        """A checkpoint holds weights and both moments of AdamW in fp32: 12 bytes per parameter."""
        return 12.0 * self.model(trial.backbone).num_params if trial.backbone else 0.0

    @property
    def data_bytes(self) -> float:
        """All videos of the mixture."""
        per_video = self.study.planning.megabytes_per_video * 1e6
        sizes = [
            s.gigabytes * 1e9 if s.gigabytes else (s.num_examples or 0) * per_video
            for s in self.study.data.sources.values()
        ]
        return float(sum(sizes))

    def pool_gpu(self) -> Gpu:
        """The GPU that stands for a plain number of slots: the cluster's first type, or the default."""
        planning = self.study.planning
        if self.study.cluster:
            return gpu_of(self.study.cluster[0], planning)
        return replace(GPUS[DEFAULT_GPU], price_per_hour=planning.price_per_gpu_hour)


def measure_throughput(estimator: Estimator, trials: Sequence[Trial]) -> float | None:
    """Median FLOP/s per slot of the finished trials' finetuning, or None while there are fewer than three."""
    resources = estimator.study.resources
    per_worker = resources.gpus_per_worker or resources.cpus_per_worker
    rates = []
    records = read_records(estimator.folder, [trial.trial_id for trial in trials])
    for trial in trials:
        found = records[trial.trial_id]
        record = found if isinstance(found, dict) else {}
        details = record.get("details", {})
        seconds, workers = details.get("finetune_seconds"), details.get("num_workers")
        if seconds and workers:
            flops = estimator.training_flops(trial) + estimator.text_flops(trial)
            rates.append(flops / (seconds * workers * per_worker))
    return statistics.median(rates) if len(rates) >= MIN_MEASURED else None
