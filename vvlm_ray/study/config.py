"""The sweep file: what a study is, as validated settings. Unknown keys are refused.

A study names its factors, backbones (one per language model size), training data, benchmarks, how to finetune,
what it may use, and the sweeps to run. `load_sweep` reads and checks it; nothing here touches torch or Ray.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.cost import cost_from_expression

FACTORS = ("lm_params", "num_frames", "tokens_per_frame")
STUDY_PREFIX = "${study}"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Backbone(_Strict):
    """A pretrained language model with its vision tower, and the projector of stage 1 if there is one."""

    lm_params: float = Field(gt=0, description="x_N: parameters without the input embedding")
    lm: str
    vision: str
    projector: str | None = None
    lr: float | None = Field(None, gt=0, description="replaces finetune.lr for this backbone")
    vision_lr: float | None = Field(None, gt=0, description="replaces finetune.vision_lr for this backbone")


class Cost(_Strict):
    """The constants of Eq. 1 (Wang et al. 2025): x_M and x_W."""

    vision_params: float = Field(0.43e9, gt=0)
    vision_tokens: int = Field(768, gt=0)


class CostExpression(_Strict):
    """c(x) of a study with factors of its own: arithmetic over their names, in FLOPs per example."""

    expression: str


class Source(_Strict):
    """One part of the instruction mixture: a LLaVA JSON file and the folder of its videos."""

    path: str
    video_root: str
    num_examples: int | None = Field(None, gt=0, description="how many it holds, for planning before it exists")
    gigabytes: float | None = Field(None, gt=0, description="the size of its videos, for planning")


class Data(_Strict):
    sources: dict[str, Source] = {}
    max_unreadable_share: float = Field(0.01, ge=0, lt=1)


class Stage1(_Strict):
    """Projector pretraining on images, once per backbone without a projector (Wang et al. 2025, Table 3)."""

    path: str
    image_root: str
    num_examples: int | None = Field(None, gt=0, description="how many images it holds; default: the whole file")
    tokens_per_frame: int = Field(729, gt=0, description="tokens of an image; a perfect square")
    batch_size: int = Field(512, gt=0)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_fraction: float = Field(0.03, ge=0, lt=1)
    epochs: int = Field(1, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"


class Synthetic(_Strict):
    """The benchmark and backbones that the study makes for itself below its folder before the first trial."""

    num_train: int = Field(gt=0)
    num_test: int = Field(gt=0)
    seed: int = 0
    base_training: float = Field(1.0, gt=0, description="scales the steps of the backbones' base training")


class LocalTask(_Strict):
    """A benchmark of the user's own: questions as JSONL and the folder of their videos."""

    questions: str
    video_root: str


class Evaluation(_Strict):
    tasks: list[str] = []
    local: dict[str, LocalTask] = {}
    batch_size: int = Field(16, gt=0)
    limit: int | None = Field(None, gt=0)
    max_unreadable_share: float = Field(0.0, ge=0, lt=1)
    judge: str = "gpt-4o-mini-2024-07-18"


class Finetune(_Strict):
    """Stage 2 (Wang et al. 2025, Table 4): all parameters, one epoch, AdamW, cosine with warm-up."""

    batch_size: int = Field(256, gt=0)
    lr: float = Field(1e-5, gt=0)
    vision_lr: float = Field(2e-6, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_fraction: float = Field(0.03, ge=0, lt=1)
    epochs: int = Field(1, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    pooling: Literal["bilinear", "bilinear-antialias", "average"] = "bilinear"


class Resources(_Strict):
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
    max_retries: int = Field(1, ge=0, description="how often a failed trial starts again")


class Planning(_Strict):
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


class NodeType(_Strict):
    """Machines of one kind: `count` of them, each with `gpus` GPUs of the type `gpu`."""

    gpu: str = Field(description="a known type (A100-80GB, H100, ...), or any name with memory_gb and peak_tflops")
    gpus: int = Field(gt=0, description="GPUs of one machine")
    count: int = Field(1, gt=0)
    memory_gb: float | None = Field(None, gt=0)
    peak_tflops: float | None = Field(None, gt=0, description="dense bf16")
    price_per_gpu_hour: float | None = Field(None, ge=0)
    accelerator: str | None = Field(None, description="Ray's name of the type, where it shares one with another type")


class Tracking(_Strict):
    project: str = "vvlm_ray"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"


PositiveCounts = Annotated[list[int], Field(min_length=1)]


class Star(_Strict):
    """One factor varied at a time around a centre, at every data size."""

    kind: Literal["star"]
    centre: dict[str, float]
    levels: dict[str, list[float]]
    num_examples: PositiveCounts


class IsoflopCurve(_Strict):
    """The points of one budget: rows of factor values in the order of `factors`."""

    tflops: float = Field(gt=0)
    points: list[list[float]] = Field(min_length=1)


class Generate(_Strict):
    """IsoFLOP points to be found: every x within `tolerance` of a budget, then a well-spaced subset.

    The subset has `points` configurations for each budget and each level of the factor `per`.
    """

    tflops: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    levels: dict[str, list[float]] = Field(description="the values that each factor may take")
    points: int = Field(5, gt=0)
    per: str | None = Field(None, description="default: the first factor")
    tolerance: float = Field(0.03, gt=0, lt=1, description="relative distance from the budget")


class Isoflop(_Strict):
    """Points of about equal inference cost for several budgets: listed as `curves`, or found by `generate`."""

    kind: Literal["isoflop"]
    factors: list[str] | None = Field(None, description="the order of values in a row; default: the study's")
    curves: list[IsoflopCurve] = []
    generate: Generate | None = None
    num_examples: PositiveCounts


class Points(_Strict):
    """Runs as they stand: rows of factor values in the order of `factors`, then the number of examples."""

    kind: Literal["points"]
    name: str = Field("points", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the records' `sweep` column")
    factors: list[str] | None = Field(None, description="the order of values in a row; default: the study's")
    points: list[list[float]] = Field(min_length=1)


Sweep = Annotated[Star | Isoflop | Points, Field(discriminator="kind")]


class Refinement(_Strict):
    """Neighbours proposed where the best point of an isoFLOP curve is its last, until it is interior.

    `score` is the column of the records that is maximised. What is proposed counts against both limits.
    """

    max_trials: int = Field(12, gt=0)
    max_training_flops: float | None = Field(None, gt=0)
    tolerance: float = Field(0.06, gt=0, lt=1, description="relative distance of a proposal from its curve's budget")
    score: str = "avg"
    uncertain_trials: int = Field(0, ge=0, description="further trials where the bag of fits disagrees most")


class Answer(_Strict):
    """What the study is asked in the end: budgets of inference TFLOPs per video and a number of examples."""

    tflops: list[float] = Field(min_length=1)
    num_examples: int | None = Field(None, gt=0, description="default: the largest of the sweeps")
    resamples: int = Field(100, ge=0)
    starts: int = Field(500, gt=0)


class Study(_Strict):
    """A whole sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = 0
    factors: list[str] = Field(list(FACTORS), min_length=1, description="what the sweeps vary")
    backbones: dict[str, Backbone] = {}
    cost: Cost | CostExpression = Cost()
    data: Data = Data()
    stage1: Stage1 | None = None
    evaluation: Evaluation = Evaluation()
    finetune: Finetune = Finetune()
    resources: Resources = Resources()
    cluster: list[NodeType] = Field([], description="the machines to plan for")
    planning: Planning = Planning()
    tracking: Tracking = Tracking()
    synthetic: Synthetic | None = None
    sweeps: list[Sweep] = Field(min_length=1)
    refinement: Refinement | None = None
    grid: dict[str, list[float]] | None = Field(None, description="X_k of the frontier; default: method's grid")
    answer: Answer | None = None

    @field_validator("backbones")
    @classmethod
    def _sizes_differ(cls, backbones: dict[str, Backbone]) -> dict[str, Backbone]:
        sizes = [b.lm_params for b in backbones.values()]
        if len(set(sizes)) != len(sizes):
            raise ValueError("two backbones have the same lm_params; a level of lm_params must name one backbone")
        return backbones

    @field_validator("stage1")
    @classmethod
    def _image_tokens_are_square(cls, stage1: Stage1 | None) -> Stage1 | None:
        if stage1 and math.isqrt(stage1.tokens_per_frame) ** 2 != stage1.tokens_per_frame:
            raise ValueError(f"tokens_per_frame = {stage1.tokens_per_frame} must be a perfect square (729 = 27 x 27)")
        return stage1

    @model_validator(mode="after")
    def _is_complete(self) -> "Study":
        if self.trains_video_vlm:
            for key, part in (
                ("backbones", self.backbones),
                ("data.sources", self.data.sources),
                ("evaluation.tasks", self.evaluation.tasks),
            ):
                if not part:
                    raise ValueError(f"{key}: missing; add it")
        elif isinstance(self.cost, Cost):
            raise ValueError(
                f"cost: the factors {', '.join(self.factors)} are not those of Eq. 1 ({', '.join(FACTORS)}); "
                "give cost: {expression: ...}, FLOPs per example as arithmetic over the factors"
            )
        else:
            cost_from_expression(self.cost.expression, self.factors)
        for task in self.evaluation.local:
            if task not in self.evaluation.tasks:
                raise ValueError(f"evaluation.local.{task}: not in evaluation.tasks, so it would never run")
        return self

    @model_validator(mode="after")
    def _levels_exist(self) -> "Study":
        for i, sweep in enumerate(self.sweeps):
            if isinstance(sweep, Isoflop) and not (sweep.curves or sweep.generate):
                raise ValueError(f"sweeps[{i}]: an isoflop sweep needs curves (listed points) or generate")
        for where, point in self._points():
            unknown = set(point) - set(self.factors)
            missing = set(self.factors) - set(point)
            if unknown or missing:
                raise ValueError(
                    f"{where}: factors must be {', '.join(self.factors)}"
                    + (f"; unknown: {', '.join(sorted(unknown))}" if unknown else "")
                    + (f"; missing: {', '.join(sorted(missing))}" if missing else "")
                )
            _check_point(where, point, [b.lm_params for b in self.backbones.values()])
        return self

    def _points(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Every factor value that the file names, with where it stands, for checking."""
        for i, sweep in enumerate(self.sweeps):
            where = f"sweeps[{i}]"
            if isinstance(sweep, Star):
                yield f"{where}.centre", sweep.centre
                for factor, levels in sweep.levels.items():
                    for j, level in enumerate(levels):
                        yield f"{where}.levels.{factor}[{j}]", {**sweep.centre, factor: level}
                continue
            names = self.row_factors(sweep)
            if isinstance(sweep, Points):
                rows = [(f"{where}.points[{k}]", row) for k, row in enumerate(sweep.points)]
                names = [*names, "num_examples"]
            else:
                rows = [
                    (f"{where}.curves[{j}].points[{k}]", row)
                    for j, curve in enumerate(sweep.curves)
                    for k, row in enumerate(curve.points)
                ]
                if sweep.generate:
                    yield from self._levels_of(f"{where}.generate", sweep.generate)
            for place, row in rows:
                if len(row) != len(names):
                    raise ValueError(f"{place}: {len(row)} values for {len(names)} factors ({', '.join(names)})")
                point = dict(zip(names, row, strict=True))
                if (n := point.pop("num_examples", 1)) < 1 or n != int(n):
                    raise ValueError(f"{place}: num_examples = {n:g} must be a whole number of at least 1")
                yield place, point

    def _levels_of(self, where: str, generate: Generate) -> Iterator[tuple[str, dict[str, float]]]:
        """Each level once, with the other factors at their first."""
        first = {factor: levels[0] for factor, levels in generate.levels.items() if levels}
        if (per := generate.per) and per not in self.factors:
            raise ValueError(f"{where}.per: {per} is not a factor; the factors are {', '.join(self.factors)}")
        for factor, levels in generate.levels.items():
            if not levels:
                raise ValueError(f"{where}.levels.{factor}: no levels")
            for j, level in enumerate(levels):
                yield f"{where}.levels.{factor}[{j}]", {**first, factor: level}

    def row_factors(self, sweep: Isoflop | Points) -> list[str]:
        """The factors of a row of listed points, in order."""
        return sweep.factors or self.factors

    @property
    def trains_video_vlm(self) -> bool:
        """Whether the built-in model can run the trials: its factors are exactly x_N, x_T and x_V."""
        return set(self.factors) == set(FACTORS)

    def backbone_of(self, lm_params: float) -> str:
        """The name of the backbone with x_N = lm_params."""
        return next(name for name, b in self.backbones.items() if b.lm_params == lm_params)

    @property
    def max_num_examples(self) -> int:
        sizes = [
            n
            for sweep in self.sweeps
            for n in ([row[-1] for row in sweep.points] if isinstance(sweep, Points) else sweep.num_examples)
        ]
        return int(max(sizes))


def _check_point(where: str, point: dict[str, float], sizes: list[float]) -> None:
    for factor, value in point.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{where}: {factor} = {value:g} must be a positive number")
    if "lm_params" in point and sizes and point["lm_params"] not in sizes:
        known = ", ".join(f"{s:,.0f}" for s in sizes)
        raise ValueError(f"{where}: no backbone has lm_params = {point['lm_params']:,.0f}; there are {known}")
    frames, tokens = point.get("num_frames", 1), point.get("tokens_per_frame", 1)
    if frames < 1 or frames != int(frames):
        raise ValueError(f"{where}: num_frames = {frames:g} must be a whole number of at least 1")
    if tokens < 1 or round(tokens**0.5) ** 2 != tokens:
        raise ValueError(f"{where}: tokens_per_frame = {tokens:g} must be a perfect square (1, 4, 9, 16, ...)")


class _UniqueKeys(yaml.SafeLoader):
    """safe_load that refuses a key given twice, where YAML would silently keep the last."""


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise UserError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load_sweep(path: str | Path) -> Study:
    """The study in a YAML sweep file.

    Raises:
        UserError: no such file, not YAML, an unknown or repeated key, a wrong value; it names file and key.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(), Loader=_UniqueKeys)  # a SafeLoader
    except OSError as err:
        raise UserError(f"{path}: cannot be read ({err.strerror})") from err
    except UserError as err:
        raise UserError(f"{path}: {err}") from err
    except yaml.YAMLError as err:
        raise UserError(f"{path}: not valid YAML: {err}") from err
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a sweep file is a mapping with keys such as name, backbones, data and sweeps")
    try:
        return Study.model_validate(raw)
    except ValidationError as err:
        raise UserError(f"{path}:\n" + "\n".join(_explain(e) for e in err.errors())) from err


KINDS = ("star", "isoflop", "points", "Cost", "CostExpression")  # pydantic names the member of a union in a key's path


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"] if part not in KINDS)
    if error["type"] == "extra_forbidden":
        return f"  {key}: unknown key; check its spelling or remove it"
    if error["type"] == "missing":
        return f"  {key}: missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    return f"  {key}: {message}" if key else f"  {message}"
