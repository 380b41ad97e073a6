"""The section `evaluation` of a sweep file: which questions a model is asked, and how its answers become scores."""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from vvlm_ray.study.sections import Name, Strict


class LocalTask(Strict):
    """A benchmark of the user's own: questions as JSONL and the folder of their videos.

    `exact`: the answer says the same as the reference. `choice`: its letter is the reference's. `judged`: the
    judge says whether it means the same.
    """

    questions: str
    video_root: str
    scoring: Literal["exact", "choice", "judged"] = "exact"
    max_new_tokens: int = Field(16, gt=0)

    @property
    def meaning(self) -> dict[str, Any]:
        """What of it changes a score, by the names of its files."""
        own = self.model_dump(include={"scoring", "max_new_tokens"}, exclude_defaults=True)
        return {"questions": self.questions, "video_root": None} | own


class LmmsTask(Strict):
    """Any other task of lmms-eval: which of its metrics, and how that becomes points on 0..100."""

    task: str = Field(description="its name (a group's stands for the mean of its tasks), or a YAML file")
    metric: str = Field(description="the key in lmms-eval's results")
    full_mark: float = Field(gt=0, description="the value worth 100 points, or 0 points where lower is better")
    higher_is_better: bool = True
    judged: bool = Field(False, description="whether the task asks a judge")


class Price(Strict):
    """Dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


PAPER_JUDGE = "gpt-4o-mini-2024-07-18"
JUDGED = ("VDC", "AQA", "VCG")  # of the eight benchmarks
_PRICES = {PAPER_JUDGE: Price(input=0.15, output=0.6)}


class Judge(Strict):
    """The language model behind an OpenAI-compatible API that scores open answers; its key is OPENAI_API_KEY.

    `rounding` makes whole scores of fractions: lmms-eval's tasks, and so the paper, cut them.
    """

    model: str = Field(PAPER_JUDGE, min_length=1)
    url: str | None = Field(None, description="default: OPENAI_API_URL, else OpenAI's")
    requests_per_minute: float | None = Field(None, gt=0, description="over all trials that are scored at once")
    max_spend: float | None = Field(None, gt=0, description="dollars, over the whole study")
    price: Price | None = Field(None, description="needed with max_spend for other judges than the paper's")
    max_unusable_share: float = Field(0.01, ge=0, lt=1, description="verdicts of a task that may be left out")
    rounding: Literal["truncate", "nearest"] = "truncate"
    num_asks: int = Field(3, gt=0, description="how often one question is asked while its reply cannot be read")
    num_threads: int = Field(16, gt=0, description="questions asked at once by one trial")
    patience_seconds: float = Field(3600, gt=0, description="how long one question may wait for a busy or absent judge")

    @field_validator("url")
    @classmethod
    def _holds_no_key(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "")
        if url is not None and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError(f"{url.split('?')[0].split('@')[-1]!r} is not an http(s) address")
        if parts.username or parts.password or re.search(r"key|token|secret|sig", parts.query, re.IGNORECASE):
            raise ValueError("holds a key; keys come from the environment (OPENAI_API_KEY), not from this file")
        return url

    @model_validator(mode="after")
    def _spend_can_be_counted(self) -> "Judge":
        if self.max_spend is not None and self.tokens_price is None:
            raise ValueError(f"max_spend: price of {self.model} not known; add price: {{input: ..., output: ...}}")
        return self

    @property
    def tokens_price(self) -> Price | None:
        return self.price or _PRICES.get(self.model)


class Evaluation(Strict):
    tasks: list[str] = Field([])
    local: dict[Name, LocalTask] = Field({})
    lmms_eval: dict[Name, LmmsTask] = Field({})
    batch_size: int = Field(16, gt=0)
    limit: int | None = Field(None, gt=0, description="only the first questions of each task, for trying things out")
    max_unreadable_share: float = Field(0.0, ge=0, lt=1)
    judge: Judge = Judge()

    @property
    def is_judged(self) -> bool:
        """Whether one of the tasks asks the judge."""
        own = {name for name, task in self.local.items() if task.scoring == "judged"}
        others = {name for name, task in self.lmms_eval.items() if task.judged}
        return bool({*JUDGED, *own, *others} & set(self.tasks))

    @property
    def meaning(self) -> dict[str, Any]:
        """What of it changes a score, the local tasks' own apart: which questions, scored how and by whom."""
        others = {name: task.model_dump() for name, task in self.lmms_eval.items()}
        judge = self.judge.model_dump(include={"model", "rounding"})
        return (
            {"tasks": self.tasks, "limit": self.limit}
            | ({"judge": judge} if self.is_judged else {})
            | ({"lmms_eval": others} if others else {})
        )

    @field_validator("judge", mode="before")
    @classmethod
    def _named_only(cls, judge: Any) -> Any:
        return {"model": judge} if isinstance(judge, str) else judge
