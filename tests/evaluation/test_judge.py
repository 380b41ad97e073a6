"""The judge: every bad reply that real ones give, over a real server on loopback, kills and several processes."""

import json
import multiprocessing
import os
import signal
import sqlite3
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests
from judge_server import GOOD, KEY, Reply
from judge_trouble import TROUBLE
from kept import keep_answers
from miniatures import CALLS
from pydantic import ValidationError

from vvlm_ray.evaluation.judge_client import JudgeClient, JudgeUnavailable, _retry_after, chat_url, key_problem, shown
from vvlm_ray.evaluation.relay import JudgeRelay
from vvlm_ray.evaluation.scoring import score_answers
from vvlm_ray.evaluation.verdicts import Verdict, read_verdict
from vvlm_ray.study.evaluation_section import PAPER_JUDGE, Evaluation, Judge, Price


def request(text, reads="score"):
    ask = "keys 'pred' and 'score'" if reads == "prediction" else "keys 'score'"
    return {
        "model": "any",
        "messages": [{"role": "user", "content": f"{text} {ask}"}],
        "temperature": 0,
        "max_tokens": 64,
    }


@pytest.mark.parametrize(
    ("content", "reads", "verdict"),
    [
        ("{'score': 4}", "score", Verdict(4)),
        ('{"score": 4}', "score", Verdict(4)),
        ("{''score': 4.8}", "score", Verdict(4)),
        ("{'score': 4.8}", "score", Verdict(4)),
        ("{'score': '4.8'}", "score", Verdict(4)),
        ("{'SCORE': 4.0,}", "score", Verdict(4)),
        ("```python\n{'score': 3}\n```", "score", Verdict(3)),
        ("My verdict is {'score': 3}, as the colour is wrong.", "score", Verdict(3)),
        ([{"type": "text", "text": "{'score'"}, {"type": "text", "text": ": 2}"}], "score", Verdict(2)),
        ("[{'score': 5}]", "score", Verdict(5)),
        ('{"verdict": {"score": 5}}', "score", Verdict(5)),
        ("{'score': 4} or {'score': 4}", "score", Verdict(4)),
        ("{'score': 4} or {'score': 3}", "score", None),
        ("{'score': 4, 'score': 3}", "score", None),
        ("{'score': null}", "score", None),
        ("{'score': None}", "score", None),
        ("{'score': True}", "score", None),
        ("{'score': 4/5}", "score", None),
        ("{'score': 6}", "score", None),
        ("{'score': -1}", "score", None),
        ("{'score': " + "9" * 400 + "}", "score", None),
        ("{'score': nan}", "score", None),
        ("{'points': 4}", "score", None),
        ("4", "score", None),
        ("", "score", None),
        (None, "score", None),
        ("{" * 10_000, "score", None),
        ("{'pred': 'yes', 'score': 4}", "prediction", Verdict(4, "yes")),
        ("{'pred': 'No.', 'score': 0}", "prediction", Verdict(0, "no")),
        ("{'pred': 'yes'}", "prediction", Verdict(5, "yes")),
        ("{'pred': 'unknown', 'score': 4}", "prediction", None),
        ("{'pred': 'yes and no', 'score': 4}", "prediction", None),
        ("{'pred': 'nothing', 'score': 4}", "prediction", None),
        ("{'pred': 'yes', 'score': 9}", "prediction", None),
        ("I would say yes.", "prediction", None),
    ],
)
def test_what_a_reply_says(content, reads, verdict):
    assert read_verdict(content, reads, "truncate") == verdict
    if verdict:
        assert read_verdict(verdict.canonical(), reads, "truncate") == verdict


@pytest.mark.parametrize(
    ("score", "truncated", "nearest"), [(4.8, 4, 5), (4.5, 4, 5), (4.4, 4, 4), (0.9, 0, 1), (5, 5, 5)]
)
def test_fractions_follow_the_stated_rule(score, truncated, nearest):
    for rounding, wanted in (("truncate", truncated), ("nearest", nearest)):
        assert read_verdict(f"{{'score': {score}}}", "score", rounding) == Verdict(wanted)


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_is_got_over_or_said_and_never_a_silent_zero(name, judge, tmp_path, monkeypatch):
    """One question of three has this trouble at its first asking (see docs/evaluation.md for the table)."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    trouble = TROUBLE[name]
    judge.say = lambda asked, number: trouble.reply if number == 1 and "number 1" in str(asked["messages"]) else GOOD
    client = JudgeClient(judge.settings(num_threads=1, patience_seconds=30), tmp_path / "judge.sqlite")
    asked = [request(f"number {n}", trouble.reads) for n in range(3)]
    if trouble.outcome == "refused":
        with pytest.raises(JudgeUnavailable) as failure:
            client.verdicts(asked, trouble.reads)
        assert KEY not in str(failure.value)
        return
    found = list(client.verdicts(asked, trouble.reads).values())
    good = Verdict(4, "yes" if trouble.reads == "prediction" else None)
    assert found == [good, trouble.verdict or good, good]
    assert len(judge.requests) == 3 + (trouble.outcome in {"asked again", "repeated"})
    if trouble.outcome == "asked again":
        nudged = judge.requests[-2] if judge.requests[-1]["messages"] == asked[2]["messages"] else judge.requests[-1]
        assert nudged["seed"] == 1
        assert "Python dictionary only" in nudged["messages"][-1]["content"]


def test_what_stays_unreadable_is_counted_and_past_the_stated_share_the_task_fails(eight, tmp_path, judge):
    """One of VDC's five verdicts, never readable: in no score, and 0.2 is too much only where it is said to be."""
    judge.say = lambda asked, number: "no idea" if "Correct Answer: red" in str(asked) else {"pred": "yes", "score": 5}
    settings = Evaluation(tasks=["VDC", "AQA"], judge=judge.settings(max_unusable_share=0.4))
    keep_answers(settings, tmp_path, lambda q, doc: f"{doc['answer']} {q.doc}")
    found = score_answers(settings, tmp_path)
    assert found.failed == {}
    assert found.scores == {"VDC": 100.0, "AQA": 100.0}
    assert found.tasks["VDC"].unusable_share == found.tasks["AQA"].unusable_share == 0.4
    strict = settings.model_copy(update={"judge": judge.settings(max_unusable_share=0.3)})
    judge.say = lambda asked, number: (
        "no idea" if "detail orientation" in str(asked) and "Answer: red" in str(asked) else GOOD
    )
    found = score_answers(strict, tmp_path)
    assert found.scores == {"AQA": 100.0}
    assert "2 of 5 verdicts" in found.failed["VDC"]


def test_a_judge_that_breaks_down_loses_nothing_and_is_paid_once(eight, tmp_path, judge):
    """It refuses after four verdicts; scored again, only the others are asked."""
    settings = Evaluation(tasks=["VCG", "AQA"], judge=judge.settings(num_threads=1))
    keep_answers(settings, tmp_path, lambda q, doc: f"{doc['answer']} {q.doc}")
    judge.say = lambda asked, number: GOOD if len(judge.requests) <= 4 else 401
    broken = score_answers(settings, tmp_path, judge_store=tmp_path / "judge.sqlite")
    assert broken.scores == {}
    assert set(broken.failed) == {"VCG", "AQA"}
    assert "OPENAI_API_KEY was refused" in broken.failed["VCG"]
    assert sum(judge.paid.values()) == 4
    judge.say = lambda asked, number: GOOD
    whole = score_answers(settings, tmp_path, judge_store=tmp_path / "judge.sqlite")
    assert (whole.failed, whole.scores) == ({}, {"VCG": 80.0, "AQA": 100.0})
    assert set(judge.paid.values()) == {1}
    assert sum(judge.paid.values()) == CALLS["VCG"] + CALLS["AQA"]


def test_consistency_pairs_are_judged_in_parallel(eight, tmp_path, judge):
    """lmms-eval asks about one pair after the other: 20 calls of 0.25 s would take 5 s."""
    settings = Evaluation(tasks=["VCG"], judge=judge.settings(num_threads=20))
    keep_answers(settings, tmp_path, lambda q, doc: f"{doc['answer']} {q.doc}")
    judge.say = lambda asked, number: time.sleep(0.25) or GOOD
    score_answers(settings, tmp_path)
    assert len(judge.times) == CALLS["VCG"]
    assert max(judge.times) - min(judge.times) < 2.0


def test_rounding_can_change_without_asking_again(eight, tmp_path, judge):
    judge.say = lambda asked, number: {"score": 3.8}
    settings = Evaluation(tasks=["VDC"], judge=judge.settings())
    keep_answers(settings, tmp_path, lambda q, doc: f"{doc['answer']} {q.doc}")
    store = tmp_path / "judge.sqlite"
    assert score_answers(settings, tmp_path, judge_store=store).scores == {"VDC": 60.0}
    nearest = settings.model_copy(update={"judge": judge.settings(rounding="nearest")})
    assert score_answers(nearest, tmp_path, judge_store=store).scores == {"VDC": 80.0}
    assert len(judge.requests) == CALLS["VDC"]


def test_spend_is_counted_and_never_exceeded(judge, tmp_path):
    price = Price(input=10.0, output=100.0)  # 200 and 10 tokens a reply: 0.003 dollars
    settings = judge.settings(max_spend=0.05, price=price, num_threads=8)
    client = JudgeClient(settings, tmp_path / "judge.sqlite")
    with pytest.raises(JudgeUnavailable, match=r"max_spend: 0.0\d+ dollars of 0.05 are spent"):
        client.verdicts([request(f"number {n}") for n in range(100)], "score")
    num_paid = sum(judge.paid.values())
    assert 5 < num_paid <= 16
    assert client.store.spent() == pytest.approx(0.003 * num_paid)
    more = JudgeClient(settings.model_copy(update={"max_spend": 5.0}), tmp_path / "judge.sqlite")
    assert len(more.verdicts([request(f"number {n}") for n in range(100)], "score")) == 100
    assert set(judge.paid.values()) == {1}


def ask(url, store, numbers, done, rate=None):
    judge = Judge(url=url, requests_per_minute=rate, num_threads=4, patience_seconds=60)
    JudgeClient(judge, store).verdicts([request(f"number {n}") for n in numbers], "score")
    done.put(time.time())


def processes(count, target, *arguments):
    fork = multiprocessing.get_context("fork")
    done = fork.Queue()
    return [fork.Process(target=target, args=(*arguments[:3], done, *arguments[3:])) for _ in range(count)]


def test_the_rate_holds_over_three_processes_and_nobody_asks_twice(judge, tmp_path):
    """All three want the same 30 verdicts at 600 a minute: 0.1 s apart, whoever asks."""
    running = processes(3, ask, judge.url, tmp_path / "judge.sqlite", range(30), 600)
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0, 0]
    assert (len(judge.times), set(judge.paid.values())) == (30, {1})
    times = sorted(judge.times)
    assert times[-1] - times[0] >= 0.1 * 29 - 0.25
    assert max(sum(1 for other in times if 0 <= other - one < 1.0) for one in times) <= 13


@pytest.mark.parametrize("num_kills", [int(os.environ.get("VVLM_RAY_KILLS", "3"))])
def test_a_kill_at_any_moment_pays_nothing_twice(num_kills, judge, tmp_path):
    """What was on its way at a kill may be asked again (nobody can know whether it was answered), nothing else."""
    judge.say = lambda asked, number: time.sleep(0.01) or GOOD
    numbers = range(40 * (num_kills + 1))
    in_flight = 0
    for kill in range(num_kills):
        (process,) = processes(1, ask, judge.url, tmp_path / "judge.sqlite", numbers)
        process.start()
        wanted = len(judge.times) + 20 + 7 * (kill % 3)
        while len(judge.times) < wanted and process.is_alive():
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        time.sleep(0.1)
        with sqlite3.connect(tmp_path / "judge.sqlite") as database:
            query = "SELECT COUNT(*) FROM replies WHERE content IS NULL AND owner IS NOT NULL"
            in_flight += database.execute(query).fetchone()[0]
    (process,) = processes(1, ask, judge.url, tmp_path / "judge.sqlite", numbers)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert len(judge.paid) == len(numbers)
    twice = Counter(judge.paid.values())
    num_answered = sum(judge.paid.values())
    print(f"{num_kills} kills: {len(numbers)} verdicts, {in_flight} on their way at a kill, {num_answered} answered")
    assert sum((count - 1) * questions for count, questions in twice.items()) <= in_flight
    assert in_flight <= 4 * num_kills


def test_the_relay_answers_only_who_knows_its_token(judge, tmp_path):
    client = JudgeClient(judge.settings(), tmp_path / "judge.sqlite")
    relay = JudgeRelay(client, is_live=False)
    with relay.serving():
        base = relay.url.split("/")[2]
        for path in ("/v1/chat/completions", "/", "/guess/v1/chat/completions"):
            assert requests.post(f"http://{base}{path}", json=request("x"), timeout=5).status_code == 404
        assert relay.asked == {}
        assert requests.post(relay.url, data=b"[1]", timeout=5).status_code == 400
        assert requests.post(relay.url, json=request("x"), timeout=5).status_code == 200
        assert os.environ["OPENAI_API_KEY"] != KEY
    assert len(relay.asked) == 1
    assert "OPENAI_API_URL" not in os.environ


def test_keys_stay_out_of_messages_and_a_loopback_judge_needs_none(monkeypatch, judge, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    judge.say = lambda asked, number: Reply(status=400)  # whose message holds the key
    monkeypatch.setenv("OPENAI_API_URL", judge.url.replace("http://", f"http://user:{KEY}@") + f"?api-key={KEY}")
    client = JudgeClient(Judge(), tmp_path / "judge.sqlite")
    with pytest.raises(JudgeUnavailable, match="status 400") as failure:
        client.verdicts([request("x")], "score")
    assert KEY not in str(failure.value) + shown(client.url)
    judge.server.shutdown()
    judge.server.server_close()
    hasty = JudgeClient(Judge(patience_seconds=0.5), tmp_path / "judge.sqlite")
    with pytest.raises(JudgeUnavailable, match=r"ConnectionError at http://127\.0\.0\.1") as failure:
        hasty.verdicts([request("x")], "score")
    assert KEY not in str(failure.value)
    assert KEY.encode() not in (tmp_path / "judge.sqlite").read_bytes()
    monkeypatch.delenv("OPENAI_API_KEY")
    assert key_problem(Judge()) is None
    monkeypatch.delenv("OPENAI_API_URL")
    assert "OPENAI_API_KEY: not set" in key_problem(Judge())


@pytest.mark.parametrize("url", ["https://user:x@host/v1", "https://host/v1?api-key=x", "host/v1", "ftp://host"])
def test_a_url_with_a_key_or_none_at_all_is_refused(url):
    with pytest.raises(ValidationError):
        Judge(url=url)


def test_the_address_may_end_before_chat_completions(monkeypatch):
    assert chat_url(Judge()) == "https://api.openai.com/v1/chat/completions"
    for url in ("http://h:1/v1", "http://h:1/v1/", "http://h:1/v1/chat/completions"):
        assert chat_url(Judge(url=url)) == "http://h:1/v1/chat/completions"
    monkeypatch.setenv("OPENAI_API_URL", "http://other/v1?api-version=1")
    assert chat_url(Judge()) == "http://other/v1/chat/completions?api-version=1"


def test_the_study_names_the_judge_and_the_environment_does_not(monkeypatch, judge, tmp_path):
    monkeypatch.setenv("MODEL_VERSION", "not for this run")
    assert Evaluation(judge="another").judge == Judge(model="another")
    for settings, asked in ((judge.settings(), PAPER_JUDGE), (judge.settings(model="another"), "another")):
        JudgeClient(settings, tmp_path / f"{asked}.sqlite").verdicts([request("x")], "score")
        assert judge.requests[-1]["model"] == asked


def test_a_price_that_is_not_known_cannot_be_limited():
    with pytest.raises(ValidationError, match="price of llama not known"):
        Judge(model="llama", max_spend=1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-5", None), ("nan", None), ("inf", None), ("soon", None), (None, None), ("", None)],
)
def test_retry_after(header, seconds):
    assert _retry_after(header) == seconds


def test_retry_after_as_a_date():
    when = datetime.now(UTC) + timedelta(seconds=60)
    assert _retry_after(format_datetime(when, usegmt=True)) == pytest.approx(60, abs=2)
    assert _retry_after(format_datetime(when - timedelta(hours=1), usegmt=True)) == 0.0


def test_a_pause_that_the_judge_asks_for_holds_all_processes(judge, tmp_path):
    judge.say = lambda asked, number: Reply(status=429, headers={"Retry-After": "1"}) if len(judge.times) == 1 else GOOD
    one, other = (JudgeClient(judge.settings(num_threads=1), tmp_path / "judge.sqlite") for _ in range(2))
    assert one.store.turn(None) == 0
    one.verdicts([request("x")], "score")
    one.store.pause(0.5)
    assert 0.3 < other.store.turn(None) <= 0.5
    assert judge.times[1] - judge.times[0] >= 0.95


def test_a_clock_that_was_set_back_does_not_stop_everybody(judge, tmp_path):
    client = JudgeClient(judge.settings(requests_per_minute=60), tmp_path / "judge.sqlite")
    with sqlite3.connect(tmp_path / "judge.sqlite") as database:
        database.execute("UPDATE pace SET next = ?", (time.time() + 1e6,))
    assert client.store.turn(60) == 0


def test_the_reply_of_a_judge_that_says_another_name_is_told(judge, tmp_path, eight):
    judge.say = lambda asked, number: Reply(GOOD, model="someone-else")
    settings = Evaluation(tasks=["VDC"], judge=judge.settings())
    keep_answers(settings, tmp_path, lambda q, doc: json.dumps(doc["answer"]))
    assert score_answers(settings, tmp_path).judge["answered_by"] == ["someone-else"]


def test_what_a_scoring_that_is_gone_has_claimed_is_free_and_what_another_holds_is_not(judge, tmp_path):
    """Ray keeps a process for many trials: a claim of an earlier one of them must not be waited for."""
    gone, other = (JudgeClient(judge.settings(patience_seconds=1.0), tmp_path / "judge.sqlite") for _ in range(2))
    assert gone.store.claim(gone.key_of(request("x")), 0, 0.0, None)
    with pytest.raises(JudgeUnavailable, match="another process"):
        other.verdicts([request("x")], "score")
    gone.store.close()
    assert list(other.verdicts([request("x")], "score").values()) == [Verdict(4)]
