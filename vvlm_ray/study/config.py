"""The sweep file: what a study is, as validated settings. Unknown keys are refused.

A study names backbones (one per language model size), training data, benchmarks, how to finetune and
what it may use, and the sweeps to run. `load_sweep` reads and checks it; nothing here touches torch or Ray.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vvlm_ray.errors import UserError

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


class Source(_Strict):
    """One part of the instruction mixture: a LLaVA JSON file and the folder of its videos."""

    path: str
    video_root: str
    num_examples: int | None = Field(None, gt=0, description="how many it holds, for planning before it exists")


class Data(_Strict):
    sources: dict[str, Source] = Field(min_length=1)
    max_unreadable_share: float = Field(0.01, ge=0, lt=1)


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
    tasks: list[str] = Field(min_length=1)
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

    workers: int = Field(1, gt=0)
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
    tflops_per_slot: float = Field(120, gt=0, description="sustained training TFLOP/s of a GPU (or CPU slot)")
    questions_per_second: float = Field(10, gt=0)


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


class Isoflop(_Strict):
    """Points of about equal inference cost, for several budgets."""

    kind: Literal["isoflop"]
    factors: list[str] = list(FACTORS)
    curves: list[IsoflopCurve] = Field(min_length=1)
    num_examples: PositiveCounts


Sweep = Annotated[Star | Isoflop, Field(discriminator="kind")]


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
    backbones: dict[str, Backbone] = Field(min_length=1)
    cost: Cost = Cost()
    data: Data
    evaluation: Evaluation
    finetune: Finetune = Finetune()
    resources: Resources = Resources()
    planning: Planning = Planning()
    tracking: Tracking = Tracking()
    synthetic: Synthetic | None = None
    sweeps: list[Sweep] = Field(min_length=1)
    grid: dict[str, list[float]] | None = Field(None, description="X_k of the frontier; default: method's grid")
    answer: Answer | None = None

    @field_validator("backbones")
    @classmethod
    def _sizes_differ(cls, backbones: dict[str, Backbone]) -> dict[str, Backbone]:
        sizes = [b.lm_params for b in backbones.values()]
        if len(set(sizes)) != len(sizes):
            raise ValueError("two backbones have the same lm_params; a level of lm_params must name one backbone")
        return backbones

    @model_validator(mode="after")
    def _levels_exist(self) -> "Study":
        for where, point in self._points():
            unknown = set(point) - set(FACTORS)
            missing = set(FACTORS) - set(point)
            if unknown or missing:
                raise ValueError(
                    f"{where}: factors must be {', '.join(FACTORS)}"
                    + (f"; unknown: {', '.join(sorted(unknown))}" if unknown else "")
                    + (f"; missing: {', '.join(sorted(missing))}" if missing else "")
                )
            _check_point(where, point, [b.lm_params for b in self.backbones.values()])
        for task in self.evaluation.local:
            if task not in self.evaluation.tasks:
                raise ValueError(f"evaluation.local.{task}: not in evaluation.tasks, so it would never run")
        return self

    def _points(self) -> list[tuple[str, dict[str, float]]]:
        """Every factor value that the file names, with where it stands, for checking."""
        points = []
        for i, sweep in enumerate(self.sweeps):
            if isinstance(sweep, Star):
                points.append((f"sweeps[{i}].centre", sweep.centre))
                points += [
                    (f"sweeps[{i}].levels.{factor}[{j}]", {**sweep.centre, factor: level})
                    for factor, levels in sweep.levels.items()
                    for j, level in enumerate(levels)
                ]
                continue
            for j, curve in enumerate(sweep.curves):
                for k, row in enumerate(curve.points):
                    where = f"sweeps[{i}].curves[{j}].points[{k}]"
                    if len(row) != len(sweep.factors):
                        raise ValueError(f"{where}: {len(row)} values for {len(sweep.factors)} factors")
                    points.append((where, dict(zip(sweep.factors, row, strict=True))))
        return points

    def backbone_of(self, lm_params: float) -> str:
        """The name of the backbone with x_N = lm_params."""
        return next(name for name, b in self.backbones.items() if b.lm_params == lm_params)

    @property
    def max_num_examples(self) -> int:
        return max(n for sweep in self.sweeps for n in sweep.num_examples)


def _check_point(where: str, point: dict[str, float], sizes: list[float]) -> None:
    frames, tokens = point["num_frames"], point["tokens_per_frame"]
    if point["lm_params"] not in sizes:
        known = ", ".join(f"{s:,.0f}" for s in sizes)
        raise ValueError(f"{where}: no backbone has lm_params = {point['lm_params']:,.0f}; there are {known}")
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


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"] if part not in ("star", "isoflop"))
    if error["type"] == "extra_forbidden":
        return f"  {key}: unknown key; check its spelling or remove it"
    if error["type"] == "missing":
        return f"  {key}: missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    return f"  {key}: {message}" if key else f"  {message}"
