"""The judge of three benchmarks: a relay between lmms-eval's tasks and the API, so that no verdict is lost.

The tasks post each answer to OPENAI_API_URL and turn every mishap into a number: a failed call or a reply
that is not the expected dictionary becomes score 0, and 4.8 becomes 4. Most of them do not keep the reply, so
the results cannot tell. The relay stands in for the API on 127.0.0.1 during an evaluation: it repeats failed
calls and unusable replies, passes every reply on unchanged, and counts what came of each. A verdict that is
missing or would be misread then fails the evaluation.

The key comes from the environment alone; it is only passed on, never kept or written anywhere.
"""

from __future__ import annotations

import ast
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.failures import EvaluationFailed

PAPER_JUDGE = "gpt-4o-mini-2024-07-18"
OPENAI_URL = "https://api.openai.com/v1/chat/completions"
KEY_VARIABLE = "OPENAI_API_KEY"

_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_OK = 200
_FULL_MARK = 5
_POLL_SECONDS = 0.05  # how soon the server notices that it is to end
# Parses in all tasks, so that they neither wait nor call again once the evaluation is lost; never recorded.
_AFTER_FAILURE = "{'pred': 'no', 'score': 0}"


@dataclass(frozen=True)
class JudgeSettings:
    """Whom to ask, and how patiently.

    `url`: the full address ending in /chat/completions. `patience_seconds`: how long one question may take
    with all repetitions; the tasks themselves give up after 60. `num_asks`: how often the same question is
    asked while its reply cannot be used. `num_threads`: questions judged at once by one process.
    """

    url: str = OPENAI_URL
    model: str = PAPER_JUDGE
    patience_seconds: float = 50.0
    num_asks: int = 3
    num_threads: int = 8

    @classmethod
    def from_environment(cls) -> JudgeSettings:
        """The paper's judge, at OPENAI_API_URL where it is set."""
        return cls.named(PAPER_JUDGE)

    @classmethod
    def named(cls, model: str) -> JudgeSettings:
        """The judge that a study names, at OPENAI_API_URL where it is set.

        MODEL_VERSION, which lmms-eval's tasks read, is not: it would change the scores and no trial's id.
        """
        return cls(url=os.environ.get("OPENAI_API_URL", OPENAI_URL), model=model)


@dataclass
class Verdicts:
    """What came of the questions to the judge: usable verdicts, and the reasons of the others."""

    num_usable: int = 0
    unusable: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @classmethod
    def sum(cls, parts: Sequence[Verdicts]) -> Verdicts:
        """The verdicts of several processes together."""
        return cls(
            num_usable=sum(part.num_usable for part in parts),
            unusable=[reason for part in parts for reason in part.unusable],
            failed=[reason for part in parts for reason in part.failed],
        )

    def check(self, task: str, num_expected: int) -> None:
        """Raise EvaluationFailed unless all `num_expected` verdicts came and say what the tasks will read."""
        if self.failed:
            raise EvaluationFailed(
                f"{task}: the judge could not be asked ({len(self.failed)} of {num_expected} questions, "
                f"{self.num_usable} were judged before): {self.failed[0]}. lmms-eval would count these as "
                "score 0; mend the connection, the key or the quota and run the evaluation again"
            )
        if self.unusable:
            raise EvaluationFailed(
                f"{task}: {len(self.unusable)} of {num_expected} verdicts cannot be used, for example "
                f"{self.unusable[0]}. lmms-eval would cut fractions and count the rest as score 0; run the "
                f"evaluation again, or use the paper's judge, {PAPER_JUDGE}"
            )
        if self.num_usable < num_expected:
            raise EvaluationFailed(
                f"{task}: the judge was asked for {self.num_usable} verdicts, but the questions need "
                f"{num_expected}; lmms-eval has lost some, so its score would be false"
            )


def read_verdict(reply: str, *, wants_prediction: bool) -> str | None:
    """None if the tasks read from `reply` what the judge meant, else why not.

    They evaluate it as a Python dictionary and take int(d["score"]), 0..5; ActivityNet-QA
    (`wants_prediction`) takes the first {...} in it, and only d["pred"], yes or no, decides its accuracy.
    """
    text = reply
    if wants_prediction and "{" in reply:
        text = "{" + reply.split("{")[1].split("}", maxsplit=1)[0] + "}"
    try:
        verdict = ast.literal_eval(text)
        score = verdict["score"]
        score = int(score) if isinstance(score, str) else float(score)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return f"no dictionary with a score: {reply!r:.120}"
    if not 0 <= score <= _FULL_MARK:
        return f"a score out of 0..{_FULL_MARK}: {reply!r:.120}"
    if wants_prediction:
        said = verdict.get("pred")
        is_clear = isinstance(said, str) and ("yes" in said.lower() or "no" in said.lower())
        return None if is_clear else f"neither yes nor no: {reply!r:.120}"
    if score != int(score):
        return f"a fractional score: {reply!r:.120}"
    return None


class JudgeRelay:
    """A server on 127.0.0.1 that passes requests on to the judge; `verdicts` says what came of them."""

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.verdicts = Verdicts()
        self._lock = threading.Lock()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                reply = json.dumps(relay.ask(body, self.headers.get("Authorization", ""))).encode()
                self.send_response(_OK)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Say nothing: requests are counted, not logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True, name="judge-relay"
        )

    @property
    def url(self) -> str:
        """The address that the tasks are given as OPENAI_API_URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1/chat/completions"

    @contextmanager
    def serving(self) -> Iterator[JudgeRelay]:
        """Serve, with the environment that the tasks read when they are imported; both end with the block."""
        self._thread.start()
        settings = {
            "API_TYPE": "openai",
            "OPENAI_API_URL": self.url,
            "MODEL_VERSION": self.settings.model,
            # A configured proxy must not be asked for an address of this machine.
            "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1"))),
            "no_proxy": ",".join(filter(None, (os.environ.get("no_proxy"), "127.0.0.1"))),
        }
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield self
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            self._server.shutdown()
            self._server.server_close()

    def ask(self, body: bytes, authorization: str) -> dict[str, Any]:
        """The judge's whole reply to one request of a task; a stand-in once a question has failed."""
        if self.verdicts.failed:
            return _chat_reply(_AFTER_FAILURE, self.settings.model)
        wants_prediction = b"keys 'pred' and 'score'" in body
        deadline = time.monotonic() + self.settings.patience_seconds
        for _ in range(self.settings.num_asks):
            try:
                reply = _post(self.settings.url, body, authorization, deadline)
                text = reply["choices"][0]["message"]["content"]
            except _CallFailed as error:
                with self._lock:
                    self.verdicts.failed.append(str(error))
                return _chat_reply(_AFTER_FAILURE, self.settings.model)
            except (KeyError, IndexError, TypeError):
                problem = f"no chat completion: {json.dumps(reply)[:120]}"
                continue
            problem = read_verdict((text or "").strip(), wants_prediction=wants_prediction)
            if problem is None:
                with self._lock:
                    self.verdicts.num_usable += 1
                # The tasks read `model` as well, and make a 0 of a reply without it.
                return {"model": self.settings.model} | reply
        with self._lock:
            self.verdicts.unusable.append(problem)
        return _chat_reply(_AFTER_FAILURE, self.settings.model)


def key_problem() -> str | None:
    """What is wrong with the judge's key in the environment, if anything."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not key or key == "YOUR_API_KEY":
        return f"{KEY_VARIABLE}: not set; the judge of VDC, AQA and VCG needs it in the environment"
    return None


def check_judge(settings: JudgeSettings) -> None:
    """Ask the judge one trivial question, before hours of answers are computed for it.

    Raises UserError when there is no key, EvaluationFailed when the judge cannot be asked.
    """
    problem = key_problem()
    if problem:
        raise UserError(problem)
    question = [{"role": "user", "content": "Reply with {'pred': 'yes', 'score': 5} and nothing else."}]
    body = {"model": settings.model, "messages": question, "temperature": 0, "max_tokens": 16}
    try:
        deadline = time.monotonic() + settings.patience_seconds
        _post(settings.url, json.dumps(body).encode(), f"Bearer {os.environ[KEY_VARIABLE]}", deadline)
    except _CallFailed as error:
        raise EvaluationFailed(
            f"the judge {settings.model} at {settings.url} does not answer: {error}. Check {KEY_VARIABLE}, "
            "OPENAI_API_URL (the full address, ending in /chat/completions) and the judge's name"
        ) from None


class _CallFailed(Exception):
    """A call that gave no reply, after all repetitions; the message is safe to show."""


def _post(url: str, body: bytes, authorization: str, deadline: float) -> dict[str, Any]:
    """POST until an answer comes; refusals fail at once, overload and outages when patience ends."""
    import requests

    pause = 1.0
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    while True:
        left = deadline - time.monotonic()
        try:
            response = requests.post(url, data=body, headers=headers, timeout=max(left, 1.0))
        except requests.exceptions.RequestException as error:
            problem, wait = f"{type(error).__name__} at {url}", pause
        else:
            if response.status_code == _OK:
                return _json_of(response)
            problem = f"status {response.status_code}{_reason(response, authorization)}"
            if response.status_code != _TOO_MANY_REQUESTS and response.status_code < _SERVER_ERROR:
                raise _CallFailed(problem)
            wait = _seconds(response.headers.get("Retry-After"), pause)
        if time.monotonic() + wait >= deadline:
            raise _CallFailed(problem)
        time.sleep(wait)
        pause *= 2


def _json_of(response: Any) -> dict[str, Any]:
    try:
        return response.json()
    except ValueError:
        return {"not JSON": response.text[:80]}


def _reason(response: Any, authorization: str) -> str:
    """The API's own words, which may hold the key: refusals of it are known to, others are searched."""
    if response.status_code in (401, 403):
        return f": the key in {KEY_VARIABLE} was refused"
    try:
        words = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    key = authorization.removeprefix("Bearer ")
    return f": {words.replace(key, '...') if key else words}"[:200]


def _seconds(header: str | None, default: float) -> float:
    try:
        return float(header)
    except (TypeError, ValueError):
        return default


def _chat_reply(text: str, model: str) -> dict[str, Any]:
    return {"model": model, "choices": [{"message": {"role": "assistant", "content": text}}]}
