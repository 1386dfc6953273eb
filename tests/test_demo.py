"""`erps demo` tells a true story, says so if it is not, and leaves nothing behind."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support import child_environ, run_python

from erps_gevent import demo
from erps_gevent.demo.shop import Person
from erps_gevent.demo.story import Demo

STEPS = [step.__name__.replace("_", " ") for step in Demo.STEPS]
ERPS = "import sys; from erps_gevent.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary files of the demo go."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    return place


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The demo, run to its end as the `erps` script, from a directory with a module of a standard name in it."""
    place = tmp_path_factory.mktemp("told")
    (place / "erps").write_text(ERPS)
    (place / "here").mkdir()
    (place / "here" / "json.py").write_text("raise SystemExit('this is not the json that anybody wants')\n")
    (place / "scratch").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place / "scratch"))
        done = run_python(place / "erps", "demo", cwd=place / "here")
    return done, list((place / "scratch").iterdir())


@contextlib.contextmanager
def interrupted(signum: int, scratch) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A demo that has been sent `signum` once its daemon ran, and that daemon's pidfd."""
    command = [sys.executable, "-c", ERPS, "demo"]
    process = subprocess.Popen(
        command, cwd=scratch, env=child_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        pid = next(int(found[1]) for line in process.stdout if (found := re.search(r"process (\d+)", line)))
        daemon = os.pidfd_open(pid)
        process.send_signal(signum)
        try:
            yield process, daemon
        finally:
            os.close(daemon)


def ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 10.0)[0])


def test_every_step_passes_in_order(told):
    done, _ = told
    assert re.findall(r"^ok +([a-z ]+?) +\d+\.\d\d s  ", done.stdout, flags=re.MULTILINE) == STEPS, done.stdout
    assert done.returncode == 0


def test_nothing_but_the_story_is_printed(told):
    done, _ = told
    assert done.stderr == ""
    assert "\033" not in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_the_summary_is_computed_from_what_happened(told):
    done, _ = told
    summary = done.stdout.splitlines()[-1]
    found = re.fullmatch(
        rf"{len(STEPS)} steps passed, 0 failed: ([\d,]+) calls, 0 lost, healed in (\d+\.\d\d) s", summary
    )
    assert found, summary
    under_load = re.search(r"([\d,]+)\s+calls,\s+each\s+begun\s+once", done.stdout)
    assert int(found[1].replace(",", "")) > int(under_load[1].replace(",", "")) > 0


def test_the_impostors_are_told_why_in_the_errors_own_words(told):
    story = " ".join(told[0].stdout.split())
    assert "it requires one and none was given; pass cert= and key= to Tls(...)" in story
    assert "it was issued by an authority that the server's ca= does not hold" in story


def test_no_file_and_no_process_is_left(told):
    done, files = told
    assert files == []
    for pid in re.findall(r"process (\d+)", done.stdout):
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_broken_step_is_told_and_is_the_exit_status(scratch, monkeypatch, capsys):
    monkeypatch.setattr(Person, "cast", lambda self, request: None)
    assert demo.run(argparse.Namespace()) == 1
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"FAILED cast +\d\.\d\d s  Failed: bob counts 1", lines[-3])
    passed = STEPS.index("cast")
    assert lines[-1].startswith(f"{passed} steps passed, 1 failed, {len(STEPS) - passed - 1} not reached: ")
    assert list(scratch.iterdir()) == []


def test_a_step_that_hangs_fails_in_time(scratch, monkeypatch, capsys):
    monkeypatch.setattr(demo, "STEP_LIMIT", 0.2)
    monkeypatch.setattr(Demo, "STEPS", [lambda self: demo.gevent.sleep(60)])
    assert demo.run(argparse.Namespace()) == 1
    assert "Failed: it took longer than 0.2 s" in capsys.readouterr().out


def test_a_call_without_an_answer_is_lost(scratch, monkeypatch, capsys):
    def failing(self: Demo) -> str:
        self.asked += 3
        self.answered += 1
        self.excused += 1
        raise RuntimeError("no answer")

    monkeypatch.setattr(Demo, "STEPS", [failing])
    assert demo.run(argparse.Namespace()) == 1
    out = capsys.readouterr().out
    assert "RuntimeError: no answer" in out
    assert out.endswith("0 steps passed, 1 failed: 3 calls, 1 lost\n")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_an_interrupted_demo_leaves_neither_process_nor_file(scratch, signum, status):
    with interrupted(signum, scratch) as (process, daemon):
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (status, "")
        assert ended(daemon)
    assert list(scratch.iterdir()) == []


def test_a_killed_demo_leaves_no_daemon(scratch):
    with interrupted(signal.SIGKILL, scratch) as (_, daemon):
        assert ended(daemon)


def test_without_trustme_the_command_to_install_it_is_printed(tmp_path):
    done = run_python("-c", f"import sys; sys.modules['trustme'] = None; {ERPS}", "demo", cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'erps_gevent[demo]'" in done.stderr
    assert "Traceback" not in done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "painted"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_it_wants_none(scratch, monkeypatch, no_color, painted):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(Demo, "STEPS", [lambda self: "fine"])
    out = Terminal()
    with contextlib.ExitStack() as close:
        assert demo.tell(Demo(scratch, close), out) == 0
    assert ("\033[32m" in out.getvalue()) == painted
