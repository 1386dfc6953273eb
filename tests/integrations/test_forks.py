"""A fork with live clients and daemons: the child is as new, and the parent notices nothing."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import traceback

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original
from gevent.socket import wait_read
from support import MS

import erps_gevent as erps
from erps_gevent import Reply, client_hub
from erps_gevent.integrations import blocking, forks
from erps_gevent.otp import bridge

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    # Of Python 3.12, where a hub thread of another test is running.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

FORKS = {"os.fork": os.fork, "gevent.os.fork_gevent": gevent.os.fork_gevent}


def read_when_there(descriptor):
    # libuv makes what it watches non-blocking.
    wait_read(descriptor)
    return os.read(descriptor, 65536)


def in_child(function, fork=os.fork):
    """What `function()` returns in a forked child, as JSON has it. The hub of the parent turns meanwhile."""
    reading, writing = os.pipe()
    pid = fork()
    if not pid:
        try:
            os.write(writing, json.dumps([function(), None]).encode())
        except BaseException:  # noqa: BLE001  the child ends here, whatever happens
            os.write(writing, json.dumps([None, traceback.format_exc()]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = b"".join(iter(lambda: read_when_there(reading), b""))
    os.close(reading)
    with contextlib.suppress(ChildProcessError):  # in a patched program gevent may have waited for it already
        os.waitpid(pid, 0)
    value, failure = json.loads(said)
    assert failure is None, failure
    return value


@contextlib.contextmanager
def standing_still(hub):
    """The thread of `hub`, if it is another one, waits in C meanwhile, and does not ask for the interpreter."""
    if not bridge.is_foreign(hub):
        yield
        return
    arrived, leave = get_original("_thread", "allocate_lock")(), get_original("_thread", "allocate_lock")()
    arrived.acquire()
    leave.acquire()
    hub.loop.run_callback_threadsafe(lambda: arrived.release() or leave.acquire())
    arrived.acquire()
    get_original("time", "sleep")(20 * MS)  # from its one step to the other
    try:
        yield
    finally:
        leave.release()


class Desk(erps.Server, identifier="desk"):
    """Says who has spoken on its line, and when told to."""

    let_go = Event()

    def init(self):
        self.speakers = []

    def handle_call(self, request, from_):
        if request == "wait":
            return self.defer(from_, lambda: Desk.let_go.wait() and "waited")
        if request not in self.speakers:
            self.speakers.append(request)
        return Reply(self.speakers)


class Caller(erps.Client, identifier="desk"):
    """Keeps what its callbacks were told, and in which process."""

    def init(self, *args):
        self.told = [("init", *args)]

    def handle_connect(self, peer):
        self.told.append(("connect", os.getpid()))

    def handle_disconnect(self, error):
        self.told.append(("disconnect", os.getpid()))


@pytest.fixture
def daemon():
    Desk.let_go.clear()
    with erps.Daemon(("127.0.0.1", 0), Desk, transport=erps.Tcp()) as daemon:
        yield daemon
        Desk.let_go.set()


@pytest.fixture(params=["here", "thread"])
def hub(request):
    return request.param


@pytest.fixture
def client(daemon, hub):
    with Caller(("127.0.0.1", daemon.server_port), transport=erps.Tcp(), hub=hub) as client:
        assert client.call("parent") == ["parent"]
        yield client


@pytest.mark.parametrize("fork", FORKS)
def test_the_child_has_a_line_of_its_own_and_the_parent_keeps_its(client, fork):
    def child():
        return [client.info()["state"], client.call("child"), client.info()["state"]]

    assert in_child(child, FORKS[fork]) == ["idle", ["child"], "up"]
    assert client.call("parent") == ["parent"]
    assert (client.stats["connects"], client.stats["lost"]) == (1, 0)


def test_a_grandchild_has_one_too(client):
    def child():
        return [client.call("child"), in_child(lambda: client.call("grandchild")), client.call("child")]

    assert in_child(child) == [["child"], ["grandchild"], ["child"]]


def test_a_call_that_was_pending_goes_on_in_the_parent_and_ends_in_the_copy(client):
    waiting = gevent.spawn(lambda: client.call("wait"))
    while not client.stats["pending"]:
        gevent.sleep(MS)

    def child():
        waiting.join()
        error = waiting.exception
        return [type(error).__name__, error.reason, error.sent, str(error)]

    name, reason, sent, text = in_child(child)
    assert (name, reason, sent) == ("Disconnected", "forked", True)
    assert "the line is the parent's" in text
    Desk.let_go.set()
    assert waiting.get() == "waited"


def test_init_runs_again_and_no_callback_tells_of_the_parents_line(daemon):
    with Caller(("127.0.0.1", daemon.server_port), "desk", transport=erps.Tcp(), hub="here") as client:
        client.call("parent")

        def child():
            gevent.sleep(5 * MS)
            before = list(client.told)
            client.call("child")
            gevent.sleep(5 * MS)
            return [before, client.told, os.getpid()]

        before, after, pid = in_child(child)
        assert before == [["init", "desk"], ["connect", os.getpid()]]
        assert after == [["init", "desk"], ["connect", pid]]


def test_a_client_that_was_closed_stays_closed(client):
    client.close()

    def child():
        with pytest.raises(erps.Disconnected, match="was closed for good"):
            client.call("child")
        return client.info()["state"]

    assert in_child(child) == "closed"


def test_a_client_that_was_disconnected_stays_so_until_connect(client):
    client.disconnect()

    def child():
        states = [client.info()["state"]]
        with pytest.raises(erps.Disconnected, match=r"connect\(\) ends this"):
            client.call("child")
        client.connect()
        return [*states, client.call("child")]

    assert in_child(child) == ["down", ["child"]]


def test_a_name_of_a_client_leads_to_the_childs_line(daemon):
    pid = Caller.start(("127.0.0.1", daemon.server_port), transport=erps.Tcp(), hub="here", name="desk-caller")
    assert erps.call("desk-caller", "parent") == ["parent"]
    assert in_child(lambda: erps.call("desk-caller", "child")) == ["child"]
    assert erps.call("desk-caller", "parent") == ["parent"]
    erps.stop(pid)


def test_a_keepalive_of_the_copy_says_nothing(daemon):
    client = Caller(("127.0.0.1", daemon.server_port), transport=erps.Tcp(), hub="here", keepalive=2 * MS)
    with client:
        client.call("parent")
        received = daemon.servers[0].received_bytes

        def child():
            gevent.sleep(20 * MS)
            return client.info()["state"]

        # The parent stands still, so that what comes is the child's.
        pid = os.fork()
        if not pid:
            child()
            os._exit(0)
        get_original("os", "waitpid")(pid, 0)
        assert daemon.servers[0].received_bytes == received
        assert client.call("parent") == ["parent"]


@pytest.mark.parametrize("options", [{"codec": "etf"}, {"signing": erps.Keyring({"k": b"k" * 32})}], ids=["etf", "key"])
def test_other_codecs_and_signed_lines_are_let_go_of_too(options):
    with (
        erps.Daemon(("127.0.0.1", 0), Desk, transport=erps.Tcp(), **options) as daemon,
        Caller(("127.0.0.1", daemon.server_port), transport=erps.Tcp(), hub="here", **options) as client,
    ):
        assert client.call("parent") == ["parent"]
        assert in_child(lambda: client.call("child")) == ["child"]
        assert client.call("parent") == ["parent"]


def test_a_tls_line_survives_its_copy(certs):
    with (
        erps.Daemon(("127.0.0.1", 0), Desk, transport=erps.Tls(**certs.identity("server"))) as daemon,
        Caller(("127.0.0.1", daemon.server_port), transport=erps.Tls(**certs.identity("alice")), hub="here") as client,
    ):
        assert client.call("parent") == ["parent"]
        assert in_child(lambda: client.call("child")) == ["child"]
        assert client.call("parent") == ["parent"]
        assert client.stats["connects"] == 1


def test_a_socket_in_the_middle_of_its_handshake_is_closed_in_a_child_that_never_runs_its_hub(certs):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Caller(listener.getsockname(), transport=erps.Tls(**certs.identity("alice")), hub="here")
        client.connect()
        gevent.sleep(0)
        accepted, _ = listener.accept()
        accepted.settimeout(10)
        wait_read(accepted.fileno())
        assert accepted.recv(65536)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.read(reading, 1)
            os._exit(0)
        client.close()
        gevent.sleep(0)
        # The child lives, and its copy would keep the connection open.
        assert accepted.recv(1) == b""
        os.write(writing, b"!")
        os.close(writing)
        os.close(reading)
        os.waitpid(pid, 0)
        accepted.close()


def test_a_lock_that_another_thread_held_does_not_hold_the_child(daemon):
    client = Caller(("127.0.0.1", daemon.server_port), transport=erps.Tcp(), hub="here")
    with client_hub._choosing:
        assert in_child(lambda: client.call("child")) == ["child"]


def test_a_fork_that_python_was_not_told_of_is_noticed(client):
    # The lock of the interpreter is copied as it is, and stays locked in the child if another thread was just asking
    # for it. Python would see to that; here it is no thread of ours that asks.
    blocking._end_all()
    with standing_still(client._lifeline.hub):
        assert in_child(lambda: client.call("child"), ctypes.PyDLL(None).fork) == ["child"]
    assert client.call("parent") == ["parent"]


def test_a_subprocess_disturbs_nobody(client):
    done = subprocess.run([sys.executable, "-c", "print('ran')"], preexec_fn=int, capture_output=True, check=True)
    assert done.stdout == b"ran\n"
    assert client.call("parent") == ["parent"]
    assert client.stats["lost"] == 0


def test_a_daemon_is_the_parents_alone(tmp_path):
    path = str(tmp_path / "desk.sock")
    with (
        erps.Daemon(path, Desk, transport=erps.Tcp()) as daemon,
        Caller(path, transport=erps.Tcp(), hub="here") as client,
    ):
        assert client.call("parent") == ["parent"]

        def child():
            found = [daemon.started, daemon.info()["servers"]]
            with pytest.raises(erps.StartError, match="another process listens there"):
                daemon.start()
            daemon.stop()
            return [*found, os.path.exists(path)]

        assert in_child(child) == [False, 0, True]
        assert client.call("parent") == ["parent"]
        assert (client.stats["lost"], daemon.info()["servers"]) == (0, 1)


def test_a_daemon_that_was_not_started_starts_in_the_child():
    daemon = erps.Daemon(("127.0.0.1", 0), Desk, transport=erps.Tcp())

    def child():
        with daemon, Caller(("127.0.0.1", daemon.server_port), transport=erps.Tcp(), hub="here") as client:
            return client.call("child")

    assert in_child(child) == ["child"]


def test_a_daemon_of_another_thread_starts_in_the_child():
    made = []
    done = get_original("_thread", "allocate_lock")()
    done.acquire()

    def make():
        made.append(erps.Daemon(("127.0.0.1", 0), Desk, transport=erps.Tcp()))
        done.release()

    get_original("_thread", "start_new_thread")(make, ())
    assert done.acquire(timeout=10)

    def child():
        with made[0] as daemon, Caller(("127.0.0.1", daemon.server_port), transport=erps.Tcp(), hub="here") as client:
            return client.call("child")

    assert in_child(child) == ["child"]


def test_in_the_process_itself_nothing_is_let_go_of(client):
    forks.after_fork()
    forks.check()
    assert client.call("parent") == ["parent"]
    assert client.stats["connects"] == 1
