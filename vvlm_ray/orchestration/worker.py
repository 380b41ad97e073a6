"""What every worker of a trial's Ray Train job runs: load, finetune, answer the benchmarks' questions.

The model stays where it is between finetuning and answering, so nothing is loaded or started twice. Scores are made
from the answers when the workers are gone (scoring.py).
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vvlm_ray.orchestration.checkpoints import CheckpointStore, remove
from vvlm_ray.orchestration.frame_store import open_store
from vvlm_ray.orchestration.scoring import answers_of, note_answered
from vvlm_ray.orchestration.tracking import track
from vvlm_ray.planning.jobs import projector_file, projector_run
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder, open_study
from vvlm_ray.study.sections import Recipe, Source
from vvlm_ray.study.stages import StageWriter
from vvlm_ray.study.storage import local_output, open_storage
from vvlm_ray.study.trials import Trial, meaning_of, needs_stage1, projector_id

if TYPE_CHECKING:
    from vvlm_ray.training.results import StepReport


def finetune_and_answer(config: dict[str, Any]) -> None:
    """One rank of one trial; `config` holds `study_root`, `sweep_file`, the trial as a dict, and `seconds_before`:
    those of earlier attempts.
    """
    import ray.train
    import torch

    from vvlm_ray.evaluation.answering import VideoAnswerer
    from vvlm_ray.evaluation.answers import answer_tasks
    from vvlm_ray.model.assembly import Assembly
    from vvlm_ray.model.folder import save_model
    from vvlm_ray.training.loop import finetune

    start = time.monotonic() - config["seconds_before"]
    folder, study = open_study(config["study_root"])
    trial = Trial.from_dict(config["trial"])
    context = ray.train.get_context()
    if study.resources.gpus_per_worker == 0:
        torch.set_num_threads(max(1, int(study.resources.cpus_per_worker)))
    torch.manual_seed(trial.seed)

    stage = StageWriter(folder.trial(trial.trial_id), context.get_world_rank() == 0)
    stage("loading", 0, 1)
    load = _Loader(folder, study, open_storage(config["sweep_file"]), trial)
    model, tokenizer, preprocessor = load.model(load.projector())
    load.check_cost(model)
    store = open_store(study, folder, preprocessor.size)
    dataset, collator = load.dataset(
        tokenizer, preprocessor, study.data.sources, max_length=model.max_length, store=store
    )

    is_writer = context.get_world_rank() == 0
    checkpoints = CheckpointStore(folder.trial(trial.trial_id))
    with track(folder, study, trial, is_writer=is_writer) as log:

        def on_step(step: StepReport) -> None:
            stage("finetuning", step.step, step.num_steps)
            log({f"train/{k}": v for k, v in asdict(step).items()})

        trained = finetune(
            model,
            dataset,
            collator,
            load.settings(study.recipe_of(trial.backbone)),
            on_step=on_step,
            save_checkpoint=checkpoints.save,
            resume_from=checkpoints.resume_from(),
        )
        if study.finetune.precision == "bf16":
            model.cast_weights(
                torch.bfloat16
            )  # finetuning keeps master weights in fp32; evaluation is in what will be served
        if is_writer and study.resources.keep == "all":
            with local_output(folder.trial(trial.trial_id) / "model") as target:
                save_model(target, Assembly(model, tokenizer, preprocessor), trial.num_frames, meaning_of(study, trial))
        answered = answer_tasks(
            VideoAnswerer(
                model,
                tokenizer,
                preprocessor,
                num_frames=trial.num_frames,
                batch_size=study.evaluation.batch_size,
            ),
            study.evaluation,
            answers_of(folder, trial.trial_id),
            resolve=load.path,
            on_batch=lambda task, done, total: stage(f"answering {task}", done, total),
        )
        if not is_writer:
            return
        note_answered(
            folder,
            trial.trial_id,
            config["sweep_file"],
            {
                "seconds": time.monotonic() - start,
                "finetune_seconds": trained.seconds,
                "answer_seconds": answered.seconds,
                "final_loss": trained.mean_loss_last_tenth,
                "num_steps": trained.num_steps,
                "num_examples_seen": trained.num_examples_seen,
                "num_unreadable": trained.num_unreadable + answered.num_unreadable,
                "unreadable": [[str(path), reason] for path, reason in trained.unreadable],
                "num_questions": answered.num_questions,
                "examples_per_second": trained.examples_per_second,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                "num_workers": context.get_world_size(),
            },
        )
        remove(folder.trial(trial.trial_id))
        stage.end()


def pretrain_projector(config: dict[str, Any]) -> None:
    """One rank of stage 1 (Wang et al. 2025, Table 3): the projector of one backbone, on images, all else frozen.

    `config` holds `study_root`, `sweep_file` and the backbone's name. Rank 0 writes the projector's file at the end.
    """
    import ray.train
    import torch

    from vvlm_ray.training.loop import finetune

    folder, study = open_study(config["study_root"])
    backbone, stage1, context = config["backbone"], study.stage1, ray.train.get_context()
    if study.resources.gpus_per_worker == 0:
        torch.set_num_threads(max(1, int(study.resources.cpus_per_worker)))
    torch.manual_seed(study.seed)
    x = {"lm_params": int(study.backbones[backbone].lm_params), "tokens_per_frame": stage1.tokens_per_frame}
    trial = Trial(
        trial_id=projector_id(study, backbone),
        sweep="stage1",
        backbone=backbone,
        num_frames=1,
        num_examples=stage1.num_examples or 0,
        inference_flops=0.0,
        seed=study.seed,
        **x,
    )
    load = _Loader(folder, study, open_storage(config["sweep_file"]), trial)
    model, tokenizer, preprocessor = load.model(projector=None)
    dataset, collator = load.dataset(
        tokenizer,
        preprocessor,
        {"stage1": stage1.source},
        max_length=model.max_length,
        is_plain=stage1.prompt == "plain",
    )
    checkpoints = CheckpointStore(projector_run(study, folder, backbone))
    stage = StageWriter(projector_run(study, folder, backbone), context.get_world_rank() == 0)
    finetune(
        model,
        dataset,
        collator,
        load.settings(stage1),
        on_step=lambda step: stage("pretraining", step.step, step.num_steps),
        save_checkpoint=checkpoints.save,
        resume_from=checkpoints.resume_from(),
    )
    if context.get_world_rank() == 0:
        target = projector_file(study, folder, backbone)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}")
        model.save_projector(temporary)
        temporary.replace(target)
        remove(projector_run(study, folder, backbone))
        stage.end()


class _Loader:
    """Everything of one trial that is read from disk, by the names of the sweep file."""

    def __init__(self, folder: StudyFolder, study: Study, sweep_file: Path, trial: Trial):
        self.folder, self.study, self.trial = folder, study, trial
        self.backbone = study.backbones[trial.backbone]
        self.path = lambda raw: folder.resolve(raw, sweep_file)

    def projector(self) -> Path | None:
        """The backbone's projector: the user's, or that of stage 1."""
        if needs_stage1(self.study, self.trial.backbone):
            return projector_file(self.study, self.folder, self.trial.backbone)
        return self.path(self.backbone.projector) if self.backbone.projector else None

    def model(self, projector: Path | None) -> tuple[Any, Any, Any]:
        """The model from its backbone, its tokenizer, and the preprocessor of its vision tower."""
        from vvlm_ray.model.assembly import assemble, backbone_folder

        b = self.backbone
        made = assemble(
            backbone_folder(b.vision, self.path(b.vision)),
            backbone_folder(b.lm, self.path(b.lm)),
            tokens_per_frame=self.trial.tokens_per_frame,
            pooling=self.study.finetune.pooling,
            projector=projector,
            chat_template=self.path(b.chat_template) if b.chat_template else None,
            system=b.system,
            pad_token=b.pad_token,
        )
        return made.model, made.tokenizer, made.preprocessor

    def check_cost(self, model: Any) -> None:
        """Hold the counts of the sweep file (Eq. 1) against the model: a cost of another model is a false answer.

        The paper's own constants are nominal (1, 2.8 and 7.5 billion; 0.43 billion), so 5 % is let pass; its
        x_W of 768 for a tower that emits 729 stays within 6 %.
        """
        from vvlm_ray.errors import UserError
        from vvlm_ray.model.video_vlm import count_parameters

        counts = count_parameters(model)
        for key, stated, true in (
            (f"backbones.{self.trial.backbone}.lm_params", self.backbone.lm_params, counts["lm_params"]),
            ("cost.vision_params", self.study.cost.vision_params, counts["vision_params"]),
            ("cost.vision_tokens", self.study.cost.vision_tokens, counts["vision_tokens"]),
        ):
            if abs(stated - true) > 0.06 * true:
                raise UserError(f"{key} is {stated:,.0f} in the sweep file and {true:,} in the model; correct the file")

    def dataset(self, tokenizer: Any, preprocessor: Any, mixture: dict[str, Source], **options: Any) -> tuple[Any, Any]:
        """The trial's subset of a mixture; all of it where the trial names no size."""
        from vvlm_ray.data.dataset import Collator, VideoInstructionDataset
        from vvlm_ray.data.mixtures import nested_subset
        from vvlm_ray.data.sources import open_mixture

        sources = open_mixture(
            mixture,
            self.folder,
            self.path,
            max_unusable_share=self.study.data.max_unusable_share,
            digests=self.study.fingerprints,
        )
        num_examples = self.trial.num_examples or sum(map(len, sources.values()))
        dataset = VideoInstructionDataset(
            nested_subset(sources, num_examples, self.trial.seed),
            tokenizer=tokenizer,
            preprocessor=preprocessor,
            num_frames=self.trial.num_frames,
            tokens_per_frame=self.trial.tokens_per_frame,
            **options,
        )
        return dataset, Collator(tokenizer.pad_token_id)

    def settings(self, recipe: Recipe) -> Any:
        """How one of the two stages runs, for `finetune`."""
        from vvlm_ray.training.settings import FinetuneSettings

        return FinetuneSettings(recipe, self.study.resources, self.study.data, self.trial.seed)
