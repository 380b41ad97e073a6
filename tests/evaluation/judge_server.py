"""A judge on 127.0.0.1 that answers as real ones do: well, and in every bad way that a test scripts."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vvlm_ray.study.evaluation_section import Judge

KEY = "sk-test-0123456789"
GOOD = {"pred": "yes", "score": 4}


class Reply:
    """One reply: `content` of the message, or a whole `body`; `cut` closes the connection in its middle."""

    def __init__(self, content=None, *, status=200, headers=None, body=None, cut=False, model="as asked"):
        self.content, self.status, self.headers = content, status, headers or {}
        self.body, self.cut, self.model = body, cut, model


class JudgeServer:
    """`say(request, number)` gives the reply to a question's number-th asking: a dict, a text, a status or a Reply.

    `paid` counts by question (its messages) how often it was answered with status 200; `times` when it was asked.
    """

    def __init__(self, say=lambda request, number: GOOD):
        self.say = say
        self.requests, self.keys, self.paid, self.times = [], set(), Counter(), []
        self._lock, self._seen = threading.Lock(), Counter()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = judge.reply(request, self.headers.get("Authorization"))
                body = reply.body if reply.body is not None else judge.body(request, reply)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if reply.cut else body)
                if reply.cut:
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def settings(self, **changes):
        return Judge(**{"url": self.url, "patience_seconds": 20, "max_unusable_share": 0.0} | changes)

    def reply(self, request, key):
        import time

        question = json.dumps(request["messages"])
        with self._lock:
            self.requests.append(request)
            self.keys.add(key)
            self.times.append(time.time())
            asked = next(m["content"] for m in request["messages"] if m["role"] == "user")  # without a nudge
            self._seen[asked] += 1
            number = self._seen[asked]
        said = self.say(request, number)
        reply = said if isinstance(said, Reply) else Reply(status=said) if isinstance(said, int) else Reply(said)
        if reply.status == 200 and not reply.cut:
            with self._lock:
                self.paid[question] += 1
        return reply

    def body(self, request, reply):
        if reply.status != 200:
            return json.dumps({"error": {"message": f"no: {KEY}"}}).encode()
        content = repr(reply.content) if isinstance(reply.content, dict) else reply.content
        body = {"choices": [{"message": {"role": "assistant", "content": content}}]}
        body["usage"] = {"prompt_tokens": 200, "completion_tokens": 10}
        model = request["model"] if reply.model == "as asked" else reply.model
        return json.dumps(body | ({"model": model} if model else {})).encode()
