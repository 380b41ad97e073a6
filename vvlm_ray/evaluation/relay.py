"""Between lmms-eval's tasks and the judge: a server on 127.0.0.1 that stands in for the API while answers are scored.

The tasks post each question to OPENAI_API_URL and turn every mishap into a number: a failed call or a reply that is
not the expected dictionary becomes score 0. They also ask one question after the other where they aggregate. So a
benchmark is scored twice: first the relay writes down what would be asked, and the judge is asked all of that in
parallel and in its own time; then it answers, at once, with verdicts in the one form that all tasks read rightly.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vvlm_ray.evaluation.judge_client import JudgeClient, JudgeUnavailable
from vvlm_ray.evaluation.verdicts import UNUSABLE, Verdict

_OK, _NOT_FOUND, _BAD = 200, 404, 400
_POLL_SECONDS = 0.05  # how soon the server notices that it is to end
_LONGEST_BODY = 1 << 24
# Parses in all tasks; nothing that is scored with it is kept.
_PLACEHOLDER = "{'pred': 'no', 'score': 0}"


class JudgeRelay:
    """Serves one scoring. `asked`: requests by hash while collecting; `served`: the verdicts that were handed out.

    `problem`: why what came out must not be kept, if so.
    """

    def __init__(self, client: JudgeClient, *, is_live: bool) -> None:
        self._client = client
        self._is_live = is_live
        self._lock = threading.Lock()
        self._verdicts: Mapping[str, Verdict | None] | None = None
        self.asked: dict[str, dict[str, Any]] = {}
        self.served: list[Verdict | None] = []
        self.problem: str | None = None
        self._token = secrets.token_urlsafe(24)
        relay, token = self, self._token

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                if (
                    not secrets.compare_digest(self.path.split("/")[1].encode(), token.encode())
                    or length > _LONGEST_BODY
                ):
                    return self._send(_NOT_FOUND, {"error": {"message": "no such address"}})
                try:
                    request = json.loads(self.rfile.read(length))
                    content = relay.answer(request)
                except (ValueError, TypeError, AttributeError):
                    return self._send(_BAD, {"error": {"message": "not a chat completion request"}})
                message = {"role": "assistant", "content": content}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                return self._send(_OK, {"model": relay.model, "object": "chat.completion", "choices": [choice]})

            def _send(self, status: int, body: dict[str, Any]) -> None:
                reply = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(reply)))
                if status != _OK:
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Say nothing: requests are counted, not logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def model(self) -> str:
        """The judge's name, which the tasks read as well."""
        return self._client.judge.model

    @property
    def url(self) -> str:
        """The address that the tasks are given as OPENAI_API_URL; only who knows its token is answered."""
        return f"http://127.0.0.1:{self._server.server_port}/{self._token}/v1/chat/completions"

    def answer_with(self, verdicts: Mapping[str, Verdict | None]) -> None:
        """Answer from now on, in place of collecting."""
        self._verdicts = verdicts

    def answer(self, request: dict[str, Any]) -> str:
        """What a task gets as the judge's words."""
        key = self._client.key_of(request)
        if self._is_live:
            try:
                return self._client.ask_once(request)
            except JudgeUnavailable as error:
                self.problem = f"the judge could not be asked: {error}"
                return _PLACEHOLDER
        with self._lock:
            if self._verdicts is None:
                self.asked[key] = request
                return _PLACEHOLDER
            if key not in self._verdicts:
                self.problem = "a judge was asked what it was not asked before"
                return _PLACEHOLDER
            verdict = self._verdicts[key]
            self.served.append(verdict)
        return UNUSABLE if verdict is None else verdict.canonical()

    @contextmanager
    def serving(self) -> Iterator[JudgeRelay]:
        """Serve, with the environment that the tasks read when they are imported; both end with the block."""
        thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True, name="judge-relay"
        )
        thread.start()
        settings = {
            "API_TYPE": "openai",
            "OPENAI_API_URL": self.url,
            "OPENAI_BASE_URL": self.url.removesuffix("/chat/completions"),
            "OPENAI_API_KEY": "for the relay",  # the judge's own key is none of the tasks' business
            "MODEL_VERSION": self.model,
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
