"""One owner of a study: two runs at once, dead ones, other hosts, clocks that disagree, s3."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vvlm_ray.study import lock
from vvlm_ray.study.lock import LOCK_FILE, Holder, Taken, hold, is_held, read_holder


def stranger(root, *, age, boot="another machine", pid=1, ttl=60.0, start=1):
    """A lock of another host's process, whose last heartbeat was `age` seconds ago by the storage's clock."""
    path = root / LOCK_FILE
    path.write_text(json.dumps(Holder("theirs", "elsewhere", pid, boot, start, ttl).__dict__))
    when = time.time() - age
    os.utime(path, (when, when))
    return path


def test_a_second_is_refused_and_told_who(tmp_path):
    with hold(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(Taken, match=f"process {os.getpid()} on "), hold(tmp_path):
            pass
    assert not is_held(tmp_path)
    with hold(tmp_path):
        pass


def test_of_many_at_once_one_gets_it(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom vvlm_ray.study.lock import Taken, hold\n"
        "while not Path(sys.argv[1], 'go').exists(): time.sleep(0.001)\n"
        "try:\n    with hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(1)\n"
        "except Taken: print('refused')"
    )
    several = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    time.sleep(2)
    (tmp_path / "go").touch()
    told = [process.communicate(timeout=60)[0].strip() for process in several]
    assert sorted(told) == ["held"] + ["refused"] * 5


def test_a_killed_run_on_this_machine_is_known_to_be_gone(tmp_path):
    code = "import sys,os,signal\nfrom pathlib import Path\nfrom vvlm_ray.study.lock import hold\n"
    code += "with hold(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert read_holder(tmp_path) is not None
    with hold(tmp_path):
        assert read_holder(tmp_path).pid == os.getpid()


def test_a_pid_that_came_again_is_not_its_holder(tmp_path):
    path = stranger(tmp_path, age=0, boot=lock._boot(), pid=os.getpid(), start=12345)
    with hold(tmp_path):
        assert json.loads(path.read_text())["token"] != "theirs"


def test_another_hosts_live_run_is_never_taken_over(tmp_path):
    stranger(tmp_path, age=5)
    for take_over in (False, True):
        with pytest.raises(Taken, match="process 1 on elsewhere; wait for it"), hold(tmp_path, take_over=take_over):
            pass


def test_another_hosts_dead_run_is_taken_over_when_asked(tmp_path):
    stranger(tmp_path, age=3600)
    with pytest.raises(Taken, match="--take-over"), hold(tmp_path):
        pass
    assert not is_held(tmp_path)
    with hold(tmp_path, take_over=True):
        assert read_holder(tmp_path).pid == os.getpid()


@pytest.mark.parametrize("skew", [-86400, 86400])
def test_a_host_whose_clock_is_a_day_off_judges_the_same(tmp_path, monkeypatch, skew):
    stranger(tmp_path, age=5)
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + skew)
    with pytest.raises(Taken, match="wait for it"), hold(tmp_path, take_over=True):
        pass


def test_it_beats_and_notices_that_it_was_taken_over(tmp_path):
    lost = threading.Event()
    with hold(tmp_path, on_lost=lost.set, ttl=0.8):
        path = tmp_path / LOCK_FILE
        before = path.stat().st_mtime_ns
        for _ in range(100):
            if path.stat().st_mtime_ns > before:
                break
            time.sleep(0.1)
        assert path.stat().st_mtime_ns > before
        stranger(tmp_path, age=0)
        assert lost.wait(20)
    assert read_holder(tmp_path).token == "theirs"  # it is not ours to remove


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}", b"[1]"], ids=["empty", "noise", "no keys", "a list"])
def test_a_lock_that_says_nothing_holds_until_its_time_is_over(tmp_path, content):
    path = Path(tmp_path, LOCK_FILE)
    path.write_bytes(content)
    with pytest.raises(Taken, match="another run"), hold(tmp_path):
        pass
    os.utime(path, (time.time() - 3600,) * 2)
    with hold(tmp_path, take_over=True):
        pass
