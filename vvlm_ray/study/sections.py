"""The sections of a sweep file, each one validated object that is passed on whole. Unknown keys are refused."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # of all that becomes part of a path or of a column's name
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Backbone(Strict):
    """A pretrained language model with its vision tower, and the projector of stage 1 if there is one."""

    lm_params: float = Field(gt=0, description="x_N: parameters without the input embedding")
    lm: str = Field(description="folder, or hub id with a revision: organisation/model@revision")
    vision: str = Field(description="as lm")
    projector: str | None = None
    chat_template: str | None = Field(
        None, description="a file with the template, for base LMs, whose folders hold none"
    )
    system: str | None = Field(None, min_length=1, description="a sentence before every conversation")
    pad_token: str | None = Field(
        None, description="default: the tokenizer's, else Llama 3's place holder, else the end"
    )
    lr: float | None = Field(None, gt=0, description="replaces finetune.lr for this backbone")
    vision_lr: float | None = Field(None, gt=0, description="replaces finetune.vision_lr for this backbone")


class Cost(Strict):
    """The constants of Eq. 1 (Wang et al. 2025): x_M and x_W."""

    vision_params: float = Field(0.43e9, gt=0)
    vision_tokens: int = Field(768, gt=0)


class CostExpression(Strict):
    """c(x) of a study with factors of its own: arithmetic over their names, in FLOPs per example."""

    expression: str


class Source(Strict):
    """One part of the instruction mixture: its annotation files (docs/data.md) and the folder of its videos.

    `published` names a data set of the manifest, which then says what `fields`, `video` and `fps` say otherwise, and
    which files to take from the folder `path`.
    """

    path: str | Annotated[list[str], Field(min_length=1)] = Field(description="file, glob, or a list of them")
    video_root: str
    published: str | None = None
    fields: dict[str, str] = Field({}, description="{our name: the files' name} of a row's fields")
    video: str | None = Field(None, description="pattern of a video's path over a row's fields: v_{video_id}.mp4")
    prompt: str | None = Field(None, min_length=1, description="what captions answer")
    fps: float | None = Field(None, gt=0, description="of folders of frames")
    allow_outside_root: bool = Field(False, description="follow links that lead out of video_root")
    num_examples: int | None = Field(None, gt=0, description="how many rows it holds at least; checked")
    gigabytes: float | None = Field(None, gt=0, description="the size of its videos, for planning")

    @property
    def patterns(self) -> list[str]:
        """Paths and globs of the annotation files."""
        return [self.path] if isinstance(self.path, str) else self.path


class FrameStore(Strict):
    """Frames decoded once for all trials, where they save most decoding for the disk they take."""

    gigabytes: float = Field(gt=0, description="that the stored frames may take in the study's folder")
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | Literal["raw"] = Field(
        95, description="raw frames are exact and about ten times as large; what is not stored is encoded alike"
    )


class Data(Strict):
    sources: dict[Name, Source] = {}
    max_unreadable_share: float = Field(0.01, ge=0, lt=1, description="of a trial's videos")
    max_unusable_share: float = Field(0.01, ge=0, lt=1, description="of a source's rows")
    frame_store: FrameStore | None = None


class Recipe(Strict):
    """How weights are trained, in either stage: AdamW, cosine schedule with linear warm-up (Wang et al. 2025, Table 4).

    `batch_size` counts examples per optimiser step, over all workers and micro-batches. "bf16" computes in bfloat16
    and keeps weights and optimiser in float32. `loss` says what weighs the same in a batch: examples (each the mean
    over its answer tokens) [open in the paper; what its code base did with one example a micro-batch], or tokens.
    """

    batch_size: int = Field(256, gt=0)
    lr: float = Field(1e-5, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_fraction: float = Field(0.03, ge=0, lt=1)
    epochs: int = Field(1, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    loss: Literal["per_example", "per_token"] = "per_example"

    @property
    def peak_lrs(self) -> dict[str, float]:
        """{part of the model: its highest learning rate} of the parts that are trained; all others are frozen."""
        raise NotImplementedError


class Stage1(Recipe):
    """Projector pretraining on images, once per backbone without a projector (Wang et al. 2025, Table 3).

    `prompt`: "plain" shows the image and then the caption, as the paper's code base does; "chat" the conversation.
    """

    path: str
    image_root: str
    num_examples: int | None = Field(None, gt=0, description="how many images it holds; default: the whole file")
    tokens_per_frame: int = Field(729, gt=0, description="tokens of an image; a perfect square")
    batch_size: int = Field(512, gt=0)
    lr: float = Field(1e-3, gt=0)
    prompt: Literal["plain", "chat"] = "plain"

    @property
    def source(self) -> Source:
        """Its images as a source of examples."""
        return Source(path=self.path, video_root=self.image_root, num_examples=self.num_examples)

    @property
    def peak_lrs(self) -> dict[str, float]:
        return {"projector": self.lr}


class Synthetic(Strict):
    """The benchmark and backbones that the study makes for itself below its folder before the first trial."""

    num_train: int = Field(gt=0)
    num_test: int = Field(gt=0)
    seed: int = 0
    base_training: float = Field(1.0, gt=0, description="scales the steps of the backbones' base training")


class Finetune(Recipe):
    """Stage 2 (Wang et al. 2025, Table 4): all parameters, one epoch. `lr` is that of the LM and the projector."""

    vision_lr: float = Field(2e-6, gt=0)
    projector_lr: float | None = Field(None, gt=0, description="default: lr")
    pooling: Literal["bilinear", "bilinear-antialias", "average"] = "bilinear"

    @property
    def peak_lrs(self) -> dict[str, float]:
        projector_lr = self.lr if self.projector_lr is None else self.projector_lr
        return {"language_model": self.lr, "projector": projector_lr, "vision_tower": self.vision_lr}


class Resources(Strict):
    """What one trial's job takes, and what may run at once. None of it changes what a trial means."""

    workers: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        1, description='"auto": for each trial the fewest GPUs that hold it, more where it would last too long'
    )
    max_trial_hours: float | None = Field(None, gt=0, description="with workers: auto, what a trial should not exceed")
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    micro_batch_size: int | None = Field(None, gt=0)
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    num_loader_workers: int = Field(0, ge=0)
    checkpoint_every_seconds: float = Field(600, gt=0)
    keep: Literal["all", "none"] = Field("all", description="finished models: 2 bytes a parameter each in bf16")
    max_retries: int = Field(
        1, ge=0, description="how often a trial starts again that failed without having come further"
    )
    max_silent_seconds: float = Field(3600, gt=0, description="a trial that shows no progress for so long is ended")


class Planning(Strict):
    """How long things take, for the order of trials and the time left; measured values replace it as trials end."""

    overhead_seconds: float = Field(120, ge=0, description="starting a trial, loading, saving")
    utilisation: float = Field(0.4, gt=0, le=1, description="share of a GPU type's peak FLOP/s that training reaches")
    tflops_per_slot: float | None = Field(
        None, gt=0, description="sustained training TFLOP/s of a GPU (or CPU slot); replaces peak x utilisation"
    )
    questions_per_second: float = Field(10, gt=0, description="of evaluation, per slot, however small the model")
    text_tokens: int = Field(200, ge=0, description="tokens of question and answer in a training example")
    price_per_gpu_hour: float | None = Field(None, ge=0, description="for GPU types that state no price of their own")
    megabytes_per_video: float = Field(10, gt=0, description="for sources that state no gigabytes")


class NodeType(Strict):
    """Machines of one kind: `count` of them, each with `gpus` GPUs of the type `gpu`."""

    gpu: str = Field(description="a known type (A100-80GB, H100, ...), or any name with memory_gb and peak_tflops")
    gpus: int = Field(gt=0, description="GPUs of one machine")
    count: int = Field(1, gt=0)
    memory_gb: float | None = Field(None, gt=0)
    peak_tflops: float | None = Field(None, gt=0, description="dense bf16")
    price_per_gpu_hour: float | None = Field(None, ge=0)
    accelerator: str | None = Field(None, description="Ray's name of the type, where it shares one with another type")


class Tracking(Strict):
    project: str = "vvlm_ray"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"


PositiveCounts = Annotated[list[int], Field(min_length=1)]


class Star(Strict):
    """One factor varied at a time around a centre, at every data size."""

    kind: Literal["star"]
    centre: dict[str, float]
    levels: dict[str, list[float]]
    num_examples: PositiveCounts


class IsoflopCurve(Strict):
    """The points of one budget: rows of factor values in the order of `factors`."""

    tflops: float = Field(gt=0)
    points: list[list[float]] = Field(min_length=1)


class Generate(Strict):
    """IsoFLOP points to be found: every x within `tolerance` of a budget, then a well-spaced subset.

    The subset has `points` configurations for each budget and each level of the factor `per`.
    """

    tflops: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    levels: dict[str, list[float]] = Field(description="the values that each factor may take")
    points: int = Field(5, gt=0)
    per: str | None = Field(None, description="default: the first factor")
    tolerance: float = Field(0.03, gt=0, lt=1, description="relative distance from the budget")


class Isoflop(Strict):
    """Points of about equal inference cost for several budgets: listed as `curves`, or found by `generate`."""

    kind: Literal["isoflop"]
    factors: list[str] | None = Field(None, description="the order of values in a row; default: the study's")
    curves: list[IsoflopCurve] = []
    generate: Generate | None = None
    num_examples: PositiveCounts


class Points(Strict):
    """Runs as they stand: rows of factor values in the order of `factors`, then the number of examples."""

    kind: Literal["points"]
    name: Name = Field("points", description="the records' `sweep` column")
    factors: list[str] | None = Field(None, description="the order of values in a row; default: the study's")
    points: list[list[float]] = Field(min_length=1)


Sweep = Annotated[Star | Isoflop | Points, Field(discriminator="kind")]


class Refinement(Strict):
    """Neighbours proposed where the best point of an isoFLOP curve is its last, until it is interior.

    `score` is the column of the records that is maximised. What is proposed counts against both limits.
    """

    max_trials: int = Field(12, gt=0)
    max_training_flops: float | None = Field(None, gt=0)
    tolerance: float = Field(0.06, gt=0, lt=1, description="relative distance of a proposal from its curve's budget")
    score: str = "avg"
    uncertain_trials: int = Field(0, ge=0, description="further trials where the bag of fits disagrees most")


class Answer(Strict):
    """What the study is asked in the end: budgets of inference TFLOPs per video and a number of examples."""

    tflops: list[float] = Field(min_length=1)
    num_examples: int | None = Field(None, gt=0, description="default: the largest of the sweeps")
    resamples: int = Field(100, ge=0)
    starts: int = Field(500, gt=0)
