"""Asking the judge: at the study's pace, patiently, never twice for the same, and never beyond its budget.

A request is the JSON body that a task of lmms-eval posts. Busy and absent judges are waited for; a reply that cannot
be read is asked for again with a nudge and another seed. The key comes from the environment and is in no message.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from vvlm_ray.evaluation.judge_store import JudgeStore, Reply, SpendReached
from vvlm_ray.evaluation.verdicts import Reads, Verdict, read_verdict, text_of
from vvlm_ray.study.evaluation_section import Judge

OPENAI_URL = "https://api.openai.com/v1/chat/completions"
KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_API_URL"

_OK, _REFUSED = 200, (401, 403)
_PASSING = {408, 409, 425, 429}  # and all from 500 on
_SERVER_ERROR = 500
_TOO_MANY = 429
_CALL_SECONDS = 120.0
_LONGEST_PAUSE = 60.0  # between two tries, where the judge does not say how long
_OTHERS_SECONDS = 0.05  # how soon a question that another thread or process is asking is looked at again
_CHARACTERS_PER_TOKEN = 2.0  # few, so that what a call may cost is not underestimated
_NUDGES: dict[Reads, str] = {
    "score": "Reply with the Python dictionary only, for example {'score': 4}: one integer between 0 and 5.",
    "prediction": "Reply with the Python dictionary only, for example {'pred': 'yes', 'score': 4}: 'yes' or 'no'.",
}


class JudgeUnavailable(Exception):
    """No reply, after all patience or because of the budget; the message is safe to show."""


class JudgeClient:
    """The judge of a study. `unusable` counts questions whose verdict stayed unreadable; `models` says who replied."""

    def __init__(self, judge: Judge, store: Path) -> None:
        self.judge = judge
        self.url = chat_url(judge)
        self.store = JudgeStore(store)
        self.models: set[str] = set()
        self._stop: JudgeUnavailable | None = None
        self._local = threading.local()
        self._key = os.environ.get(KEY_VARIABLE, "")

    def verdicts(self, requests: Iterable[dict[str, Any]], reads: Reads) -> dict[str, Verdict | None]:
        """The verdict of each distinct request, by its hash; None where it stayed unreadable. Asked in parallel.

        Raises JudgeUnavailable once one cannot be asked; what has been answered till then is kept.
        """
        distinct = {self.key_of(request): request for request in requests}
        self._stop = None
        with ThreadPoolExecutor(self.judge.num_threads, thread_name_prefix="judge") as pool:
            futures = {key: pool.submit(self._verdict, key, request, reads) for key, request in distinct.items()}
            return {key: future.result() for key, future in futures.items()}

    def key_of(self, request: dict[str, Any]) -> str:
        """The hash of what is asked of whom; where the server is called by several names, these are several."""
        asked = {key: value for key, value in request.items() if key != "model"}
        text = json.dumps([shown(self.url), self.judge.model, asked], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def ask_once(self, request: dict[str, Any]) -> str:
        """The text of the reply to a request whose verdict is not ours to read."""
        return text_of(json.loads(self._reply(self.key_of(request), 0, request).content))

    def _verdict(self, key: str, request: dict[str, Any], reads: Reads) -> Verdict | None:
        try:
            return self._asked(key, request, reads)
        except JudgeUnavailable as error:
            self._stop = self._stop or error  # the others end at their next step
            raise

    def _asked(self, key: str, request: dict[str, Any], reads: Reads) -> Verdict | None:
        for ask in range(self.judge.num_asks):
            reply = self._reply(key, ask, request if ask == 0 else _nudged(request, ask, reads))
            if reply.model:
                self.models.add(reply.model)
            verdict = read_verdict(json.loads(reply.content), reads, self.judge.rounding)
            if verdict is not None:
                return verdict
        return None

    def _reply(self, key: str, ask: int, request: dict[str, Any]) -> Reply:
        """The kept reply, or the judge's own, kept. One process asks, the others wait for it."""
        estimate = self._estimate(request)
        deadline = time.monotonic() + self.judge.patience_seconds
        while True:
            if self._stop:
                raise self._stop
            if reply := self.store.reply(key, ask):
                return reply
            try:
                is_mine = self.store.claim(key, ask, estimate, self.judge.max_spend)
            except SpendReached as error:
                raise JudgeUnavailable(
                    f"max_spend: {error.dollars:.4f} dollars of {self.judge.max_spend:g} are spent; raise "
                    "evaluation.judge.max_spend and score again (what was answered is kept)"
                ) from None
            if is_mine:
                try:
                    body = self._call({**request, "model": self.judge.model}, deadline)
                except BaseException:
                    self.store.release(key, ask, estimate)
                    raise
                reply = _reply_of(body)
                self.store.keep(key, ask, reply, estimate, self._dollars(body, estimate))
                return reply
            if time.monotonic() > deadline:
                raise JudgeUnavailable(
                    f"another process has been asking one of the questions for {self.judge.patience_seconds:g} s"
                )
            time.sleep(_OTHERS_SECONDS)

    def _call(self, request: dict[str, Any], deadline: float) -> Any:
        """The decoded body of the judge's reply; None where it is not JSON. Repeated until patience ends."""
        import requests

        pause = 1.0
        while True:
            self._wait_for_turn(deadline)
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            session = self._session()
            try:
                response = session.post(self.url, json=request, headers=headers, timeout=_CALL_SECONDS)
            except requests.exceptions.RequestException as error:
                problem, wait = f"{type(error).__name__} at {shown(self.url)}", pause
            else:
                if response.status_code == _OK:
                    return _json_of(response)
                problem = f"status {response.status_code}{self._reason(response)}"
                if response.status_code not in _PASSING and response.status_code < _SERVER_ERROR:
                    raise JudgeUnavailable(problem)
                if "insufficient_quota" in response.text:
                    raise JudgeUnavailable(problem)
                asked = _retry_after(response.headers.get("Retry-After"))
                wait = pause if asked is None else asked
                if response.status_code == _TOO_MANY:
                    self.store.pause(min(wait, max(0.0, deadline - time.monotonic())))
            if time.monotonic() + wait >= deadline:
                raise JudgeUnavailable(f"{problem}, for longer than {self.judge.patience_seconds:g} s")
            self._sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _wait_for_turn(self, deadline: float) -> None:
        wait = self.store.turn(self.judge.requests_per_minute)
        if time.monotonic() + wait >= deadline:
            raise JudgeUnavailable(
                f"at {self.judge.requests_per_minute or 0:g} requests a minute and with the judge's own pauses the "
                f"queue is {wait:.0f} s long, beyond the patience of {self.judge.patience_seconds:g} s"
            )
        self._sleep(wait)

    def _sleep(self, seconds: float) -> None:
        """Sleep, unless the others have given up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stop:
                raise self._stop
            time.sleep(min(left, 0.2))

    def _session(self) -> Any:
        """One connection a thread."""
        import requests

        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            # No .netrc: it would put another key in our key's place. A loopback address has no proxy.
            self._local.session.trust_env = not is_loopback(self.url)
            self._local.session.auth = lambda prepared: prepared
        return self._local.session

    def _estimate(self, request: dict[str, Any]) -> float:
        """Dollars that a reply costs at most."""
        price = self.judge.tokens_price
        if price is None:
            return 0.0
        num_in = len(json.dumps(request)) / _CHARACTERS_PER_TOKEN
        return (num_in * price.input + float(request.get("max_tokens") or 1024) * price.output) / 1e6

    def _dollars(self, body: Any, estimate: float) -> float:
        price = self.judge.tokens_price
        if price is None:
            return 0.0
        try:
            usage = body["usage"]
            return (int(usage["prompt_tokens"]) * price.input + int(usage["completion_tokens"]) * price.output) / 1e6
        except (KeyError, TypeError, ValueError):
            return estimate  # the judge does not say: what it costs at most

    def _reason(self, response: Any) -> str:
        """The API's own words, which may hold the key: refusals of it are known to, others are searched."""
        if response.status_code in _REFUSED:
            return f": the key in {KEY_VARIABLE} was refused"
        try:
            words = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            return ""
        for secret in (self._key, *_secrets_in(self.url)):
            words = words.replace(secret, "...") if secret else words
        return f": {words}"[:200]


def chat_url(judge: Judge) -> str:
    """The full address of the judge: the study's, OPENAI_API_URL, or OpenAI's."""
    url = judge.url or os.environ.get(URL_VARIABLE) or OPENAI_URL
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith("/completions") else f"{path}/chat/completions"))


def shown(url: str) -> str:
    """An address without what may be a key: no user, no password, no query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def is_loopback(url: str) -> bool:
    """Whether the judge runs on this machine, where it needs no key."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_problem(judge: Judge) -> str | None:
    """What is wrong with the judge's key in the environment, if anything."""
    key = os.environ.get(KEY_VARIABLE, "")
    if (not key or key == "YOUR_API_KEY") and not is_loopback(chat_url(judge)):
        return (
            f"{KEY_VARIABLE}: not set; the judge {judge.model} at {shown(chat_url(judge))} needs it in the environment"
        )
    return None


def _nudged(request: dict[str, Any], ask: int, reads: Reads) -> dict[str, Any]:
    """The same question once more: temperature 0 would give the same unreadable reply again."""
    messages = [*request.get("messages", []), {"role": "user", "content": _NUDGES[reads]}]
    return {**request, "messages": messages, "seed": ask}


def _reply_of(body: Any) -> Reply:
    """What is kept of a reply; null content where it is no chat completion (it may have been paid for all the same)."""
    try:
        content = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        content = None
    model = body.get("model") if isinstance(body, dict) else None
    return Reply(json.dumps(content), model if isinstance(model, str) else None)


def _json_of(response: Any) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _secrets_in(url: str) -> list[str]:
    parts = urlsplit(url)
    return [text for text in (parts.username, parts.password, parts.query) if text]


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, given in seconds or as a date; None where it says nothing sensible."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except (TypeError, ValueError):
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = max(0.0, (when - datetime.now(UTC)).total_seconds())
    return seconds if 0 <= seconds < float("inf") else None
