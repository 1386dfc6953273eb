"""The hub thread: one per Python process, whoever asks, and never in the way of the program's end."""

from __future__ import annotations

import os
import re
import signal
import textwrap

import gevent
import pytest
from gevent.hub import get_hub
from gevent.monkey import get_original
from support import run_python

from erps_gevent.errors import StartError
from erps_gevent.integrations import threads
from erps_gevent.integrations.threads import hub_thread
from erps_gevent.otp import bridge

start_thread = get_original("_thread", "start_new_thread")
allocate_lock = get_original("_thread", "allocate_lock")
get_ident = get_original("_thread", "get_ident")


@pytest.fixture
def forgotten(monkeypatch):
    """As in a process that has not asked for it yet."""
    monkeypatch.setattr(threads, "_hub", None)


def test_it_is_another_hub_in_another_thread():
    hub = hub_thread()
    assert hub is not get_hub()
    assert hub.thread_ident != get_ident()
    assert bridge.is_foreign(hub)
    assert hub.name == "erps_gevent"


def test_it_runs_what_it_is_given():
    assert bridge.run_in(hub_thread(), get_ident) == hub_thread().thread_ident


def test_there_is_one_however_many_threads_ask_at_once(forgotten):
    found, locks = [], []
    for _ in range(8):
        done = allocate_lock()
        done.acquire()
        locks.append(done)

        def ask(done=done):
            found.append(hub_thread())
            done.release()

        start_thread(ask, ())
    for done in locks:
        assert done.acquire(timeout=10)
    assert len(set(map(id, found))) == 1


def test_it_stays_when_there_is_nothing_to_do():
    hub = hub_thread()
    for _ in range(3):
        bridge.run_in(hub, gevent.sleep, 0.001)
    assert bridge.run_in(hub, lambda: "alive") == "alive"


def test_an_exit_inside_it_ends_neither_it_nor_the_program(capfd):
    hub = hub_thread()

    def leave():
        raise SystemExit(3)

    bridge.run_in(hub, lambda: gevent.spawn(leave).join())
    assert bridge.run_in(hub, lambda: "alive") == "alive"
    assert hub_thread() is hub


def test_a_hub_that_cannot_start_is_an_error_and_is_tried_again(forgotten, monkeypatch):
    def none_left():
        raise MemoryError("no descriptors left")

    with monkeypatch.context() as patch:
        patch.setattr(threads, "get_hub", none_left)
        with pytest.raises(StartError, match="no descriptors left") as caught:
            hub_thread()
        assert isinstance(caught.value.__cause__, MemoryError)
    assert bridge.run_in(hub_thread(), lambda: "alive") == "alive"


def test_a_thread_that_cannot_start_is_an_error(forgotten, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_start_thread", refuse)
    with pytest.raises(StartError, match="can't start new thread"):
        hub_thread()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_one_of_its_own():
    """Also if another thread was starting one at that moment."""
    code = """
        import os, signal
        from erps_gevent.integrations import threads
        from erps_gevent.otp import bridge
        parents = threads.hub_thread()
        threads._lock.acquire()
        child = os.fork()
        if not child:
            signal.alarm(20)
            hub = threads.hub_thread()
            ok = hub is not parents and bridge.run_in(hub, os.getpid) == os.getpid()
            os._exit(0 if ok else 1)
        threads._lock.release()
        status = os.waitpid(child, 0)[1]
        assert bridge.run_in(parents, lambda: "alive") == "alive"
        print("child", status)
    """
    done = run_python("-W", "ignore", "-c", textwrap.dedent(code))
    assert (done.stdout, done.returncode) == ("child 0\n", 0), done.stderr


# One that computes keeps the interpreter, which coverage asks for again and again to write down what it has seen.
@pytest.mark.parametrize("doing", ["nothing", "waiting", "busy", pytest.param("computing", marks=pytest.mark.volume)])
def test_the_program_ends_whatever_the_hub_thread_does(doing):
    code = f"""
        import gevent
        from erps_gevent.integrations.threads import hub_thread
        from erps_gevent.otp import bridge

        def be_busy():
            while True:
                gevent.sleep(0.001)

        def compute():
            while True:
                pass

        work = {{"nothing": None, "waiting": lambda: gevent.sleep(3600), "busy": be_busy, "computing": compute}}
        if work[{doing!r}]:
            hub = hub_thread()
            bridge.run_in(hub, gevent.sleep, 0.001)
            hub.loop.run_callback_threadsafe(gevent.spawn, work[{doing!r}])
        print("done")
    """
    for _ in range(3):
        done = run_python("-c", textwrap.dedent(code), timeout=30.0)
        assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0), signal.strsignal(-done.returncode)


PROGRAM = """
    import atexit, signal, sys, threading, time

    def late():
        try:
            print("atexit", client.call("late", timeout=2.0), flush=True)
        except erps.Disconnected as error:
            print("atexit", error.reason, flush=True)

    {early}
    import gevent
    import erps_gevent as erps

    class Silent(erps.Server, identifier="exits"):
        def handle_call(self, request, from_):
            return erps.NoReply() if request == "silence" else erps.Reply(request)

    class Client(erps.Client, identifier="exits", hub={hub!r}):
        pass

    def wait(for_ever=None):
        try:
            client.call("silence", timeout=None if for_ever else 0.1)
        except erps.CallTimeout as error:
            print("in time", error.sent, flush=True)

    def begin(count, target, *args, daemon=True):
        for _ in range(count):
            threading.Thread(target=target, args=args, daemon=daemon).start()
        while client.stats["pending"] < count:
            gevent.sleep(0.001)

    def call_on():
        while True:
            client.call("again")

    daemon = erps.Daemon(("127.0.0.1", 0), Silent, transport=erps.Tcp())
    daemon.start_in_thread()
    client = Client(("127.0.0.1", daemon.server_port), transport=erps.Tcp())
    client.call("begin")
"""
LEAVING = """
    leaving = threading.Thread(target=lambda: client.call("leaving") and sys.exit(3))
    leaving.start()
    while leaving.is_alive():
        gevent.sleep(0.001)
    print(client.call("after"))
"""
INTERRUPTED = """
    begin(4, wait, True)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        client.call("silence", timeout=None)
    except KeyboardInterrupt:
        sys.exit(130)
"""
ENDS = {
    # What the program does before it imports us, and after that; what it prints, and its exit status.
    "with a live client": ("", "", "", 0),
    "while daemon threads wait for ever": ("", "begin(8, wait, True)", "", 0),
    "while daemon threads call": (
        "",
        "threading.Thread(target=call_on, daemon=True).start(); gevent.sleep(0.02)",
        "",
        0,
    ),
    "when a thread has had its answer": ("", "begin(1, wait, daemon=False)", "in time True\n", 0),
    "after an exit handler of later": ("", "atexit.register(late)", "atexit late\n", 0),
    "after an exit handler of earlier": ("atexit.register(late)", "", "atexit thread_ended\n", 0),
    "by sys.exit": ("", "begin(1, wait, True); sys.exit(4)", "", 4),
    "after sys.exit in a thread": ("", LEAVING, "after\n", 0),
    "by Ctrl-C": ("", INTERRUPTED, "", 130),
}
HERE = ("while daemon threads wait for ever", "when a thread has had its answer", "by sys.exit", "by Ctrl-C")
LEAVING_TIME = 10.0  # seconds; it takes half a one


@pytest.mark.parametrize(("how", "hub"), [*((how, "thread") for how in ENDS), *((how, "here") for how in HERE)])
def test_the_program_ends_quietly(how, hub):
    early, body, printed, status = ENDS[how]
    code = textwrap.dedent(PROGRAM.format(early=early, hub=hub)) + textwrap.dedent(body)
    done = run_python("-c", code, timeout=LEAVING_TIME)
    # gevent itself names a KeyboardInterrupt that has struck in its hub, and when; in libuv's loop, where too.
    told = re.sub(r"Traceback .*\n(  File \".*/gevent/.*\n(    .*\n)*)+(?=KeyboardInterrupt)", "", done.stderr)
    noise = [line for line in told.splitlines() if not line.startswith(("KeyboardInterrupt", "20"))]
    assert (done.stdout, noise, done.returncode) == (printed, [], status)
