"""One global client in programs that serve no HTTP: asyncio, processes, Celery; and tests under pytest-xdist."""

from __future__ import annotations

import multiprocessing
import re
import shutil
from pathlib import Path

import pytest
from hosts import Host
from web import VisitsServer, copy_example

PROGRAMS = Path(__file__).parent / "programs"
QUICK = 20.0  # seconds for a program that has made its calls to end; the calls take about 0.1

XDIST_TESTS = """
import os
import pytest
import erps_gevent as erps

class Counter(erps.Server, identifier="counter"):
    def init(self):
        self.count = 0

    def handle_call(self, request, from_):
        self.count += request
        return erps.Reply(self.count)

@pytest.mark.parametrize("transport", ["memory", "tcp"] * 2)
def test_it_counts(erps_daemon, erps_client, transport, worker_id):
    counter = erps_client(erps_daemon(Counter, transport=transport))
    assert [counter.call(2), counter.call(3)] == [2, 5]
    assert worker_id in ("gw0", "gw1")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    copy = copy_example(tmp_path_factory.mktemp("example"))
    shutil.copytree(PROGRAMS, copy, dirs_exist_ok=True)
    return copy


@pytest.fixture
def visits(start, place):
    return start(VisitsServer, cwd=place)


@pytest.fixture
def run(start, place, visits):
    """Run a program to its end, which has to come without an error or a ResourceWarning; what it printed, in words."""

    def run_it(program, *arguments, **environ):
        host = start(
            Host, "-W", "default::ResourceWarning", program, *arguments, cwd=place, VISITS=visits.url, **environ
        )
        assert host.end(QUICK) == 0, host.log
        assert len(host.log.splitlines()) == 1, host.log
        return host.log.split()

    return run_it


def check_lines(server, count):
    """So many lines, each of one process alone."""
    server.wait_for("is of worker", count)
    lines = server.lines()
    assert len({line for line, _ in lines}) == len({worker for _, worker in lines}) == len(lines) == count, lines


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("script.py", "1 thread"),
        ("threads.py", "True thread"),
        ("greenlets.py", "True here"),
        ("notebook.py", "[1, 2, 3] thread"),
        ("to_thread.py", "True thread"),
    ],
)
def test_a_program_of_one_process_has_one_line_and_ends_though_it_closes_nothing(run, visits, program, printed):
    assert " ".join(run(program)) == printed
    check_lines(visits, 1)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_each_process_of_a_pool_has_a_line_of_its_own(run, visits, method):
    right, *pids = run("processes.py", method)
    assert right == "True"
    check_lines(visits, 1 + len(pids))


def test_a_child_of_which_python_was_not_told_has_a_line_of_its_own_whichever_thread_comes_first(run, visits):
    assert run("unhooked.py") == ["0"]
    check_lines(visits, 2)


def test_each_process_of_celerys_prefork_has_a_line_of_its_own(start, run, place, visits, tmp_path):
    queue = {"QUEUE": str(tmp_path / "queue")}
    options = ["--pool", "prefork", "--concurrency", "2", "--loglevel", "INFO"]
    worker = start(Host, "-m", "celery", "-A", "tasks", "worker", *options, cwd=place, VISITS=visits.url, **queue)
    worker.wait_for("ready")
    right, *pids = run("send_tasks.py", "40", **queue)
    assert (right, len(pids)) == ("True", 2)
    check_lines(visits, 4)  # the worker's, its two processes', and the sender's
    assert worker.stop() == 0
    assert "Traceback" not in worker.log


def test_the_fixtures_work_under_xdist(start, tmp_path):
    (tmp_path / "test_counter.py").write_text(XDIST_TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    host = start(Host, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider")
    assert host.end(60.0) == 0, host.log
    assert re.search(r"\b4 passed", host.log)
