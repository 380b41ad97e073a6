"""A study as its sweep file describes it: the sections together, and what they must agree on."""

import math
from collections.abc import Iterator, Mapping

from pydantic import Field, PrivateAttr, field_validator, model_validator

from vvlm_ray.scaling.cost import cost_from_expression
from vvlm_ray.study.evaluation_section import Evaluation
from vvlm_ray.study.sections import (
    Answer,
    Backbone,
    Cost,
    CostExpression,
    Data,
    Finetune,
    Generate,
    Isoflop,
    Name,
    NodeType,
    Planning,
    Points,
    Refinement,
    Resources,
    Stage1,
    Star,
    Strict,
    Sweep,
    Synthetic,
    Tracking,
)

FACTORS = ("lm_params", "num_frames", "tokens_per_frame")
STUDY_PREFIX = "${study}"
# What a table of records says of each trial beside its factors and scores: no factor or task can have these names.
RECORD_COLUMNS = frozenset(
    {"trial_id", "sweep", "backbone", "num_examples", "inference_flops", "target_flops", "seed", "status", "reason"}
    | {"attempts", "avg", "partial", "judge", "seconds", "error", "score"}
)


class Study(Strict):
    """A whole sweep file."""

    name: Name
    seed: int = 0
    factors: list[str] = Field(list(FACTORS), min_length=1, description="what the sweeps vary")
    backbones: dict[Name, Backbone] = Field({})
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
    _fingerprints: dict[str, str] = PrivateAttr(default_factory=dict)  # see study/fingerprints.py

    @property
    def fingerprints(self) -> dict[str, str]:
        """What the files that the study names hold, by key, as far as it was read; part of what a trial means."""
        return self._fingerprints

    def with_fingerprints(self, fingerprints: Mapping[str, str]) -> "Study":
        """The same study, knowing what its files hold."""
        study = self.model_copy()
        study._fingerprints = dict(fingerprints)
        return study

    @field_validator("factors")
    @classmethod
    def _factors_are_names(cls, factors: list[str]) -> list[str]:
        for k, factor in enumerate(factors):
            if not factor.isidentifier():
                raise ValueError(f"factors[{k}]: {factor!r} is no name of letters, digits and underscores")
            if factor in RECORD_COLUMNS:
                raise ValueError(f"factors[{k}]: {factor!r} is a column that every record has; choose another name")
        if len(set(factors)) < len(factors):
            raise ValueError("a factor is named twice")
        return factors

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
        for key in ("local", "lmms_eval"):
            for task in getattr(self.evaluation, key):
                if task in {*RECORD_COLUMNS, *self.factors}:
                    raise ValueError(f"evaluation.{key}.{task}: records have a column of this name; choose another")
                if task not in self.evaluation.tasks:
                    raise ValueError(f"evaluation.{key}.{task}: not in evaluation.tasks, so it would never run")
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

    def recipe_of(self, backbone: str | None) -> Finetune:
        """How trials of a backbone are finetuned: `finetune`, with the backbone's own learning rates."""
        mine = self.backbones[backbone] if backbone else None
        own = {key: rate for key in ("lr", "vision_lr") if mine and (rate := getattr(mine, key)) is not None}
        return self.finetune.model_copy(update=own)

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
