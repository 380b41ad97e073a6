"""The judged benchmarks against a real chat-completions server on 127.0.0.1, with lmms-eval's own scoring."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

import pytest
from colour_world import NUM_FRAMES

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.benchmarks import BENCHMARKS
from vvlm_ray.evaluation.evaluate import evaluate
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.judge import PAPER_JUDGE, JudgeSettings, check_judge, read_verdict

KEY = "sk-test-0123456789"
GOOD = {"pred": "yes", "score": 4}


class Judge:
    """Answers like the API; `verdict(body)` gives a dict, a text, or an HTTP status for each question."""

    def __init__(self):
        self.verdict = lambda body: GOOD
        self.bodies, self.keys = [], set()
        self.names_itself = True
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                judge.keys.add(self.headers["Authorization"])
                judge.bodies.append(body)
                said = judge.verdict(body) if body["max_tokens"] == 64 else GOOD
                status = said if isinstance(said, int) else 200
                message = {"role": "assistant", "content": said if isinstance(said, str) else repr(said)}
                good = {"choices": [{"message": message}]} | ({"model": body["model"]} if judge.names_itself else {})
                reply = json.dumps(good if status == 200 else {"error": {"message": f"no: {KEY}"}}).encode()
                self.send_response(status)
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def settings(self):
        url = f"http://127.0.0.1:{self.server.server_port}/v1/chat/completions"
        return JudgeSettings(url=url, patience_seconds=2.0)

    @property
    def questions(self):
        return [body for body in self.bodies if body["max_tokens"] == 64]


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    judge = Judge()
    yield judge
    judge.server.shutdown()


def detailed_captions(published):
    rows = []
    for index, (clip, colour) in enumerate(published.clips[:5]):
        published.video(clip, "videochatgpt/Test_Videos", f"c{index}.mp4")
        rows.append({"video_name": f"c{index}", "question": "name it", "answer": colour})
    published.dataset("lmms-lab/VideoDetailDescription", "test", rows)


def activitynet_qa(published):
    rows = []
    for index, (clip, colour) in enumerate(published.clips[:5]):
        published.video(clip, "activitynetqa/all_test", f"v_a{index}.mp4")
        row = {"video_name": f"a{index}", "question": "which colour", "answer": colour}
        rows.append(row | {"question_id": f"a{index}_1", "type": "4"})
    published.dataset("lmms-eval/ActivityNetQA", "test", rows)


def vcg_bench(published):
    single, pairs = [], []
    for index, (clip, colour) in enumerate(published.clips[:4]):
        published.video(clip, "videochatgpt/Test_Videos", f"g{index}.mp4")
        row = {"video_name": f"g{index}", "answer": colour}
        single.append(row | {"question": "name it", "question_1": "None", "question_2": "None"})
        pairs.append(row | {"question": "None", "question_1": "name it", "question_2": "None"})
        pairs.append(row | {"question": "None", "question_1": "None", "question_2": "name it"})
    for config, rows in {"Generic": single, "Temporal": single, "Consistency": pairs}.items():
        published.dataset("lmms-eval/VideoChatGPT", "test", rows, config)


BUILDERS = {"VDC": detailed_captions, "AQA": activitynet_qa, "VCG": vcg_bench}
CALLS = {"VDC": 5, "AQA": 5, "VCG": 3 * 4 + 4 + 4}


@pytest.mark.parametrize(("name", "score"), [("VDC", 80.0), ("AQA", 100.0), ("VCG", 80.0)])
def test_good_verdicts_become_points(name, score, published, judge, parts, capfd, monkeypatch):  # noqa: PLR0917
    BUILDERS[name](published)
    monkeypatch.setenv("MODEL_VERSION", "not for this run")
    before = {path.name for path in published.home.parent.iterdir()}
    result = evaluate(*parts, tasks=[name], num_frames=NUM_FRAMES, judge=judge.settings)
    assert result.scores == {name: pytest.approx(score)}
    assert len(judge.questions) == CALLS[name]
    assert {body["model"] for body in judge.bodies} == {PAPER_JUDGE}
    assert judge.keys == {f"Bearer {KEY}"}
    assert {path.name for path in published.home.parent.iterdir()} == before  # no submission files here
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["VDC", "AQA"])
def test_the_study_names_the_judge_and_a_reply_without_the_models_name_is_no_zero(name, published, judge, parts):
    BUILDERS[name](published)
    judge.names_itself = False
    settings = replace(judge.settings, model="another-judge")
    result = evaluate(*parts, tasks=[name], num_frames=NUM_FRAMES, judge=settings)
    assert result.scores == {name: pytest.approx(100.0 if name == "AQA" else 80.0)}
    assert result.judge == "another-judge"
    assert {body["model"] for body in judge.bodies} == {"another-judge"}


def test_the_environment_does_not_change_the_judge(monkeypatch):
    monkeypatch.setenv("MODEL_VERSION", "not for this run")
    assert JudgeSettings.from_environment().model == PAPER_JUDGE
    assert JudgeSettings.named("another-judge").model == "another-judge"


def test_fractions_and_fences_do_not_matter_where_yes_or_no_decides(published, judge, parts):
    activitynet_qa(published)
    judge.verdict = lambda body: "```python\n{'pred': 'yes', 'score': 4.8}\n```"
    result = evaluate(*parts, tasks=["AQA"], num_frames=NUM_FRAMES, judge=judge.settings)
    assert result.scores == {"AQA": 100.0}


def test_the_judge_sees_what_the_model_said(published, judge, parts):
    detailed_captions(published)
    evaluate(*parts, tasks=["VDC"], num_frames=NUM_FRAMES, judge=judge.settings)
    for body in judge.questions:
        lines = dict(line.split(": ") for line in body["messages"][1]["content"].splitlines() if "Answer: " in line)
        assert lines["Predicted Answer"] == lines["Correct Answer"]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("VDC", {"score": 4.5}),
        ("VCG", {"score": 4.5}),
        ("VDC", "```python\n{'score': 4}\n```"),
        ("VCG", {"points": 4}),
        ("VDC", {"score": 9}),
        ("AQA", "I would say yes."),
        ("AQA", {"pred": "perhaps", "score": 4}),
    ],
)
def test_one_unusable_verdict_fails_the_benchmark(name, bad, published, judge, parts):
    BUILDERS[name](published)
    first = []

    def verdict(body):
        first.append(body)
        return bad if body == first[0] else GOOD

    judge.verdict = verdict
    with pytest.raises(EvaluationFailed, match=rf"{name}: [1-4] of {CALLS[name]} verdicts cannot be used"):
        evaluate(*parts, tasks=[name], num_frames=NUM_FRAMES, judge=judge.settings)


@pytest.mark.parametrize(("name", "status"), [("VDC", 401), ("AQA", 400), ("AQA", 500), ("VCG", 500)])
def test_a_judge_that_breaks_down_fails_the_benchmark_at_once(name, status, published, judge, parts, capfd):  # noqa: PLR0917
    BUILDERS[name](published)
    judge.verdict = lambda body: status if len(judge.questions) > 2 else GOOD
    settings = replace(judge.settings, patience_seconds=0.2, num_threads=1)
    with pytest.raises(EvaluationFailed, match=f"{name}: the judge could not be asked .*{status}") as failure:
        evaluate(*parts, tasks=[name], num_frames=NUM_FRAMES, judge=settings)
    assert KEY not in str(failure.value) + "".join(capfd.readouterr())


def test_passing_trouble_is_got_over(published, judge, parts):
    detailed_captions(published)
    replies = iter([429, 503, "what?", 500])
    judge.verdict = lambda body: next(replies, GOOD)
    result = evaluate(*parts, tasks=["VDC"], num_frames=NUM_FRAMES, judge=judge.settings)
    assert result.scores == {"VDC": pytest.approx(80.0)}


def test_verdicts_that_lmms_eval_loses_fail_the_benchmark(published, judge, parts):
    """With `limit`, consistency has questions without a second one, which lmms-eval drops."""
    vcg_bench(published)
    rows = [json.loads(row) for row in (published.home.parent / "lmms-eval/VideoChatGPT/Consistency.jsonl").open()]
    published.dataset("lmms-eval/VideoChatGPT", "test", rows[::2], "Consistency")
    with pytest.raises(EvaluationFailed, match=r"VCG: .*asked for 16 verdicts.* need 18"):
        evaluate(*parts, tasks=["VCG"], num_frames=NUM_FRAMES, judge=judge.settings)


def test_a_missing_video_of_vdc_does_not_end_the_process(published, judge, parts):
    detailed_captions(published)
    next(published.home.rglob("c1.mp4")).unlink()
    with pytest.raises(EvaluationFailed, match=r"VDC|video_dc499: 1 of 5 .*c1\.mp4"):
        evaluate(*parts, tasks=["VDC"], num_frames=NUM_FRAMES, judge=judge.settings)
    assert judge.questions == []  # nothing was paid for


def test_a_judge_that_is_not_there_is_noticed_before_anything_is_computed(published, judge, parts, monkeypatch):
    detailed_captions(published)
    judge.server.server_close()
    settings = JudgeSettings(url=judge.settings.url, patience_seconds=0.2)
    with pytest.raises(EvaluationFailed, match=r"does not answer: ConnectionError .*OPENAI_API_URL"):
        evaluate(*parts, tasks=["VDC"], num_frames=NUM_FRAMES, judge=settings)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        check_judge(settings)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("{'score': 4}", None),
        ("{'score': 4.0}", None),
        ("{'score': '4'}", None),
        ("{'score': 4.8}", "fractional"),
        ("{'score': '4.8'}", "no dictionary"),
        ("{'score': -1}", "out of"),
        ("4", "no dictionary"),
        ("", "no dictionary"),
    ],
)
def test_verdicts_are_read_as_the_tasks_read_them(reply, says):
    found = read_verdict(reply, wants_prediction=False)
    assert found is None if says is None else says in found


def test_the_installed_tasks_still_turn_bad_verdicts_into_numbers(monkeypatch):
    """Why there is a relay at all: a later lmms-eval that keeps fractions and raises for failures needs none."""
    monkeypatch.setenv("HF_HOME", "anywhere")
    caption, vcg = (import_module(f"lmms_eval.tasks.{BENCHMARKS[name].folder}.utils") for name in ("VDC", "VCG"))
    for module in (caption, vcg):
        assert [module.parse_score(text) for text in ("{'score': 4.8}", "", "{}", "four")] == [4, 0, 0, 0]
