"""What a judge may do to one question, and what comes of it: the rows of the table in docs/evaluation.md."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from judge_server import GOOD, Reply

from vvlm_ray.evaluation.verdicts import Verdict


@dataclass(frozen=True)
class Trouble:
    """`outcome`: "read" at once, "asked again" with a nudge, "repeated" unchanged, or "refused"."""

    reply: object
    outcome: str
    verdict: Verdict | None = None
    reads: str = "score"


PARTS = json.dumps(
    {"model": "m", "choices": [{"message": {"content": [{"type": "text", "text": "{'score': 4}"}]}}]}
).encode()
SOON = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)

TROUBLE = {
    "a plain dictionary": Trouble(GOOD, "read"),
    "in fences": Trouble("```python\n{'score': 4}\n```", "read"),
    "in prose": Trouble("The answer is close. {'score': 4} I hope this helps!", "read"),
    "as JSON": Trouble('{"score": 4}', "read"),
    "a list": Trouble("[{'score': 4}]", "read"),
    "a fraction, 4.8": Trouble("{'score': 4.8}", "read"),
    "the prompts' own {''score': 4.8}": Trouble("{''score': 4.8}", "read"),
    "without `model`": Trouble(Reply(GOOD, model=None), "read"),
    "another model's name": Trouble(Reply(GOOD, model="someone-else"), "read"),
    "content in parts": Trouble(Reply(body=PARTS), "read"),
    "yes without a score": Trouble("{'pred': 'yes'}", "read", Verdict(5, "yes"), reads="prediction"),
    "score null": Trouble("{'score': null}", "asked again"),
    "content null": Trouble(Reply(body=b'{"choices": [{"message": {"content": null}}]}'), "asked again"),
    "no choices": Trouble(Reply(body=b'{"choices": []}'), "asked again"),
    "truncated JSON": Trouble(Reply(body=b'{"choices": [{"mess'), "asked again"),
    "prose alone": Trouble("I would give it a four.", "asked again"),
    "two verdicts that differ": Trouble("{'score': 4} or rather {'score': 2}", "asked again"),
    "a score of 400 digits": Trouble("{'score': " + "9" * 400 + "}", "asked again"),
    "a score of 9": Trouble("{'score': 9}", "asked again"),
    "cut off by max_tokens": Trouble("{'score':", "asked again"),
    "'unknown' for yes or no": Trouble("{'pred': 'unknown', 'score': 4}", "asked again", reads="prediction"),
    "'yes and no'": Trouble("{'pred': 'yes and no', 'score': 4}", "asked again", reads="prediction"),
    "429, Retry-After 1": Trouble(Reply(status=429, headers={"Retry-After": "1"}), "repeated"),
    "429, Retry-After a date": Trouble(Reply(status=429, headers={"Retry-After": SOON}), "repeated"),
    "429, Retry-After -5": Trouble(Reply(status=429, headers={"Retry-After": "-5"}), "repeated"),
    "408": Trouble(408, "repeated"),
    "409": Trouble(409, "repeated"),
    "425": Trouble(425, "repeated"),
    "500": Trouble(500, "repeated"),
    "503": Trouble(503, "repeated"),
    "connection cut": Trouble(Reply(GOOD, cut=True), "repeated"),
    "400": Trouble(400, "refused"),
    "401": Trouble(401, "refused"),
    "404": Trouble(404, "refused"),
    "quota used up": Trouble(Reply(status=429, body=b'{"error": {"code": "insufficient_quota"}}'), "refused"),
}
