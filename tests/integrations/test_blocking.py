"""The watch: a handler that blocks the hub is named, with its stack, once, and nothing else is."""

from __future__ import annotations

import logging

import gevent
import pytest
from faces import PATIENCE, House, until, wire
from gevent.monkey import get_original
from support import MS, run_python

import erps_gevent as erps
from erps_gevent import Reply
from erps_gevent.errors import ConfigError
from erps_gevent.integrations import blocking

THRESHOLD = 100 * MS  # a crowded machine keeps a handler waiting for less
BLOCK = 5 * THRESHOLD  # of a handler: it is seen for sure after two thresholds and a half


def sleep_natively(seconds):
    get_original("time", "sleep")(seconds)


class Blocker(erps.Server, identifier="lab"):
    def init(self, seconds=0.0):
        sleep_natively(seconds)

    def handle_call(self, request, from_):
        match request:
            case "ping":
                return Reply("pong")
            case "block":
                sleep_natively(BLOCK)
                return Reply("blocked")
            case "park":
                gevent.sleep(BLOCK)
                return Reply("parked")
            case "run_blocking":
                self.run_blocking(sleep_natively, BLOCK)
                return Reply("in a thread")
            case "defer":
                return self.defer(from_, sleep_natively, BLOCK)

    def handle_cast(self, request):
        sleep_natively(BLOCK)

    def terminate(self, reason):
        if reason == "slowly":
            sleep_natively(BLOCK)


@pytest.fixture
def house():
    made = House(wire("tcp", None))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    monkeypatch.setattr(blocking, "_named", set())
    # The watches of daemons of earlier tests linger, and name what blocks the hub whosever it is.
    blocking._end_all()
    blocking._paused.clear()


@pytest.fixture
def warnings(caplog):
    """The texts of the warnings so far."""
    caplog.set_level(logging.WARNING, "erps_gevent")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "erps_gevent"]


@pytest.fixture
def daemon(house):
    return house.daemon(Blocker, blocking_threshold=THRESHOLD)


@pytest.fixture
def client(house, daemon):
    return house.client(daemon)


def the_one(warnings):
    until(warnings)
    (text,) = warnings()
    return text


def test_a_handler_that_blocks_is_named_with_its_stack_and_a_remedy(client, warnings):
    assert client.call("block", timeout=PATIENCE) == "blocked"
    text = the_one(warnings)
    assert text.startswith("Blocker.handle_call has blocked the hub for 0.")
    assert "self.run_blocking(function, *args)" in text
    assert "monkey.patch_all()" in text
    assert 'test_blocking.py", line' in text
    assert "sleep_natively(BLOCK)" in text
    assert "loop.py" not in text


def test_it_is_a_warning_of_the_library(client, caplog):
    client.call("block", timeout=PATIENCE)
    until(lambda: caplog.records)
    assert (caplog.records[0].name, caplog.records[0].levelno) == ("erps_gevent", logging.WARNING)


def test_the_time_named_is_the_whole_block(client, warnings):
    client.call("block", timeout=PATIENCE)
    seconds = float(the_one(warnings).split(" for ")[1].split(" s:")[0])
    assert seconds >= BLOCK - THRESHOLD


def test_a_place_is_named_once(client, warnings):
    client.call("block", timeout=PATIENCE)
    the_one(warnings)
    client.call("block", timeout=PATIENCE)
    client.call("park", timeout=PATIENCE)
    assert len(warnings()) == 1


def test_a_cast_is_named_as_handle_cast(client, warnings):
    client.cast("block")
    assert the_one(warnings).startswith("Blocker.handle_cast has blocked")


def test_a_slow_init_is_named(house, warnings):
    house.client(house.daemon(Blocker, BLOCK, blocking_threshold=THRESHOLD)).wait_connected(timeout=PATIENCE)
    assert the_one(warnings).startswith("Blocker.init has blocked")


def test_a_slow_terminate_is_named(client, daemon, warnings):
    client.wait_connected(timeout=PATIENCE)
    (server,) = daemon.servers
    erps.stop(server.pid, "slowly")
    until(lambda: any("Blocker.terminate has blocked" in text for text in warnings()))


def test_what_is_deferred_and_blocks_is_named(client, warnings):
    client.call("defer", timeout=PATIENCE)
    assert the_one(warnings).startswith("Blocker.defer of sleep_natively has blocked")


@pytest.mark.parametrize("request_", ["park", "run_blocking"])
def test_a_handler_that_parks_is_not_named(client, warnings, request_):
    client.call(request_, timeout=PATIENCE)
    assert warnings() == []


def test_what_blocks_outside_of_a_handler_is_left_to_gevent(client, warnings):
    client.call("ping", timeout=PATIENCE)
    sleep_natively(BLOCK)
    client.call("ping", timeout=PATIENCE)
    assert warnings() == []


def test_none_switches_it_off(house, warnings):
    daemon = house.daemon(Blocker, blocking_threshold=None)
    assert house.client(daemon).call("block", timeout=PATIENCE) == "blocked"
    assert daemon._watch is None
    assert warnings() == []


@pytest.mark.parametrize("wrong", [0, -1, "fast", True])
def test_a_threshold_that_is_no_time_is_refused(wrong):
    with pytest.raises((ConfigError, TypeError), match="blocking_threshold"):
        erps.Daemon(("127.0.0.1", 0), Blocker, transport=erps.Tcp(), blocking_threshold=wrong)


def test_the_thread_ends_when_there_are_no_servers_and_starts_again_with_the_next(
    house, daemon, client, warnings, monkeypatch
):
    monkeypatch.setattr(blocking, "LINGER", 2 * THRESHOLD)
    client.call("ping", timeout=PATIENCE)
    assert daemon._watch.running
    client.close()
    until(lambda: not daemon._watch.running)
    house.client(daemon).call("block", timeout=PATIENCE)
    the_one(warnings)


def test_a_block_without_end_is_told_to_standard_error_meanwhile(client, monkeypatch, capfd):
    monkeypatch.setattr(blocking, "STUCK_AFTER", 3 * THRESHOLD)
    client.call("block", timeout=PATIENCE)
    err = capfd.readouterr().err
    assert "Blocker.handle_call has been blocking the hub" in err


def test_the_places_that_are_remembered_are_bounded(client, warnings, monkeypatch):
    monkeypatch.setattr(blocking, "MOST_PLACES", 0)
    client.call("block", timeout=PATIENCE)
    client.call("park", timeout=PATIENCE)
    assert warnings() == []


def test_a_thread_that_cannot_start_is_a_warning_and_clients_are_served(client, warnings, monkeypatch):
    def none_left(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(blocking, "_start_thread", none_left)
    assert client.call("ping", timeout=PATIENCE) == "pong"
    assert the_one(warnings).endswith("the watch thread cannot start: can't start new thread")


PROGRAM = """
import os, signal, subprocess, sys, time, zlib, logging
{patch}
import gevent
import erps_gevent as erps
import gevent.event
named = gevent.event.Event()

class Prints(logging.Handler):
    def emit(self, record):
        print(record.getMessage())
        named.set()

logging.getLogger("erps_gevent").addHandler(Prints())

class Blocker(erps.Server, identifier="lab"):
    def handle_call(self, request, from_):
        {handler}
        return erps.Reply("done")

class Client(erps.Client, identifier="lab"):
    pass

daemon = erps.Daemon(("127.0.0.1", 0), Blocker, transport=erps.Tcp(), blocking_threshold={threshold})
daemon.start()
with Client(daemon.address, transport=erps.Tcp(), hub="here") as client:
    client.call("go")
    {then}
print("end", flush=True)
"""

SLEEP = "__import__('gevent.monkey').monkey.get_original('time', 'sleep')(0.1)"


def output_of(handler, then="named.wait(10)", patch="", threshold=0.02):
    # 3.12 warns of every fork of a process that has threads, and counts one that is just ending.
    program = PROGRAM.format(handler=handler, then=then, patch=patch, threshold=threshold)
    done = run_python("-W", "ignore:This process:DeprecationWarning", "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_it_works_in_a_patched_process_and_the_program_ends():
    out = output_of(SLEEP, patch="from gevent import monkey; monkey.patch_all()")
    assert out.startswith("Blocker.handle_call has blocked")
    assert out.endswith("end\n")


def test_a_suspended_process_is_no_block():
    # The threshold is one that a crowded machine does not keep a handler for, and the suspension is well beyond it.
    waker = "subprocess.Popen(['sh', '-c', f'while sleep 2; do kill -CONT {os.getpid()} || exit; done'])"
    suspended = f"global waker; waker = {waker}; os.kill(os.getpid(), signal.SIGSTOP)"
    assert output_of(suspended, "gevent.sleep(0.6); waker.kill()", threshold=0.5) == "end\n"


def test_c_code_that_keeps_the_gil_is_named_afterwards():
    # Between C code and the end of the handler there is some Python, where the GIL is given away. And the first of them
    # may be over before the watch has begun at all.
    handler = "sum(range(10_000_000)); [number for number in range(300_000)]"
    again = "[client.call('go') for _ in range(20) if not named.is_set()]; named.wait(10)"
    assert output_of(handler, again).startswith("Blocker.handle_call has blocked")


def test_after_a_fork_the_parent_watches_on_and_the_child_has_no_watch_of_its_own_yet():
    in_child = (
        "pid = os.fork(); client2 = Client(daemon.address, transport=erps.Tcp(), hub='here'); "
        "daemon._watch.running and os._exit(7) if not pid else None; "
        "os._exit(0) if not pid else None; assert os.waitpid(pid, 0)[1] == 0; assert daemon._watch.running"
    )
    assert output_of("pass", then=in_child).endswith("end\n")
