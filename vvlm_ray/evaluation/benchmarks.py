"""The paper's eight benchmarks as lmms-eval 0.7.3 knows them (Wang et al. 2025, Table 5): data, no code.

Scales differ from task to task (0..1, 0..5, 0..100), and nothing in lmms-eval's results says which is which,
so each metric carries its own full mark here and is brought to 0..100 by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One number of lmms-eval: results[task][f"{key},none"], worth 100 points at `full_mark`.

    `part` names it among a benchmark's metrics. `is_paired`: the judge gives one verdict for two questions about a
    video. `skips_empty`: lmms-eval leaves empty answers out of the mean.
    """

    task: str
    key: str
    full_mark: float
    part: str = ""
    higher_is_better: bool = True
    is_paired: bool = False
    skips_empty: bool = False

    def points(self, value: float) -> float:
        """The value on 0..100, where more is better."""
        share = value / self.full_mark
        return 100 * (share if self.higher_is_better else 1 - share)


@dataclass(frozen=True)
class Benchmark:
    """A column of the records: the plain mean of its metrics, each on 0..100.

    `folder`: its YAML files, below lmms_eval/tasks or anywhere. `videos`: where lmms-eval looks for videos below
    HF_HOME. `reads`: what its tasks take from the judge's verdicts.
    """

    abbreviation: str
    name: str
    folder: str
    videos: str
    metrics: tuple[Metric, ...]
    reads: Literal["score", "prediction"] | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of lmms-eval's tasks, each once."""
        return tuple(dict.fromkeys(metric.task for metric in self.metrics))

    @property
    def is_judged(self) -> bool:
        """Whether answers are scored by a language model behind an API."""
        return self.reads is not None


_MVBENCH = (
    "action_antonym",
    "action_count",
    "action_localization",
    "action_prediction",
    "action_sequence",
    "character_order",
    "counterfactual_inference",
    "egocentric_navigation",
    "episodic_reasoning",
    "fine_grained_action",
    "fine_grained_pose",
    "moving_attribute",
    "moving_count",
    "moving_direction",
    "object_existence",
    "object_interaction",
    "object_shuffle",
    "scene_transition",
    "state_change",
    "unexpected_action",
)

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.abbreviation: benchmark
    for benchmark in (
        Benchmark(
            "VDC",
            "VideoDetailedCaption",
            folder="video_detail_description",
            videos="videochatgpt/Test_Videos",
            metrics=(Metric("video_dc499", "gpt_eval_score", 5.0),),
            reads="score",
        ),
        Benchmark(
            "AQA",
            "ActivityNet-QA",
            folder="activitynetqa",
            videos="activitynetqa/all_test",
            metrics=(Metric("activitynetqa", "gpt_eval_accuracy", 100.0),),
            reads="prediction",
        ),
        Benchmark(
            "VCG",
            "VCGBench",
            folder="videochatgpt",
            videos="videochatgpt/Test_Videos",
            metrics=(
                Metric("videochatgpt_gen", "gpt_eval_score_correctness", 5.0, "correctness"),
                Metric("videochatgpt_gen", "gpt_eval_score_detailed_orientation", 5.0, "detailed_orientation"),
                Metric("videochatgpt_gen", "gpt_eval_score_context", 5.0, "context"),
                Metric("videochatgpt_temporal", "gpt_eval_score_temporal", 5.0, "temporal"),
                Metric("videochatgpt_consistency", "gpt_eval_score_consistency", 5.0, "consistency", is_paired=True),
            ),
            reads="score",
        ),
        Benchmark(
            "LVB",
            "LongVideoBench",
            folder="longvideobench",
            videos="datasets/longvideobench/videos",
            metrics=(Metric("longvideobench_val_v", "lvb_acc", 1.0),),
        ),
        Benchmark(
            "PT",
            "PerceptionTest",
            folder="perceptiontest/val",
            videos="perceptiontest_val/videos",
            metrics=(Metric("perceptiontest_val_mc", "accuracy", 1.0),),
        ),
        Benchmark(
            "MV",
            "MVBench",
            folder="mvbench",
            videos="mvbench_video",
            # lmms-eval gives no mean of the twenty parts; each has 200 questions, so theirs is plain.
            metrics=tuple(
                Metric(f"mvbench_{part}", "mvbench_accuracy", 100.0, part, skips_empty=True) for part in _MVBENCH
            ),
        ),
        Benchmark(
            "VMME",
            "Video-MME",
            folder="videomme",
            videos="videomme/data",
            metrics=(Metric("videomme", "videomme_perception_score", 100.0),),
        ),
        Benchmark(
            "NQA",
            "NExT-QA",
            folder="nextqa",
            videos="nextqa/NExTVideo",
            metrics=(Metric("nextqa_mc_test", "exact_match", 1.0),),
        ),
    )
}

CHOICES = ("LVB", "PT", "MV", "VMME", "NQA")  # the multiple-choice ones
