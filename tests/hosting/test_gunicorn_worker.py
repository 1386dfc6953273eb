"""gunicorn with ErpsWorker, ordinary life: binds, boots that fail, hooks, logs, signals, and how a worker ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hosts import Gunicorn, Host

import erps_gevent as erps

WORKER = "erps_gevent.integrations.gunicorn.ErpsWorker"
PATIENCE = 20.0
EXITING = r"Worker exiting \(pid: (\d+)\)"

CONF = """\
from pathlib import Path

accesslog = "access.log"

def note(text):
    with open("notes", "a") as notes:
        print(text, file=notes)

def post_worker_init(worker):
    note(f"init {len(worker.daemons)}")

def pre_request(worker, req):
    note(f"pre {req.method} {req.path} {req.request}")
    if req.request == "odd":
        raise ValueError("a hook that fails")

def post_request(worker, req, environ, resp):
    note(f"post {resp.status} {resp.seconds > 0}")

def worker_exit(server, worker):
    note("exit")
"""

APPS = """
import erps_gevent as erps
from tokens import Tokens

class Stuck(erps.Server, identifier="tokens"):
    def handle_call(self, request, from_):
        return erps.NoReply()

def make(listener, transport):
    return erps.Daemon(listener, Tokens, transport=transport, max_connection_age=0.5)

def wsgi(environ, start_response):
    return []
"""


@pytest.fixture(autouse=True)
def applications(tmp_path):
    shutil.copy(Path(__file__).parent / "tokens.py", tmp_path)
    (tmp_path / "apps.py").write_text(APPS)


@pytest.fixture
def tls(certs):
    """gunicorn's arguments for two-way TLS."""
    words = {"--certfile": certs.cert("server"), "--keyfile": certs.key("server"), "--ca-certs": certs.ca}
    return [*(word for pair in words.items() for word in pair), "--cert-reqs", "2"]


@pytest.fixture
def call(certs):
    """A call to an address by a client that is closed at the end; the client is kept in `call.clients`."""
    with ExitStack() as close:

        def connected(address, transport=None, who="alice"):
            identity = erps.Tls(**certs.identity(who), server_hostname="localhost")
            client = erps.Client(address, identifier="tokens", transport=transport or identity)
            close.callback(client.close)
            client.wait_connected(timeout=PATIENCE)
            return client

        yield connected


class Script(Gunicorn):
    """Started by its own name: what USR2 makes of `python -m gunicorn` finds gunicorn's `http` in place of Python's."""

    def __init__(self, *arguments: str | Path, cwd: Path, **environ: str) -> None:
        script = Path(sys.executable).parent / "gunicorn"
        Host.__init__(self, script, "--bind", "127.0.0.1:0", *arguments, cwd=cwd, **environ)


def port_of(gunicorn: Gunicorn) -> tuple[str, int]:
    return "127.0.0.1", int(gunicorn.url.rpartition(":")[2])


def refused(start, *words) -> str:
    """The log of a gunicorn that does not come up."""
    gunicorn = start(Gunicorn, *words)
    assert gunicorn.end() != 0
    assert gunicorn.log.count("Booting worker") <= 1, "it is not started again and again"
    return gunicorn.log


def test_an_idle_client_moves_and_its_worker_ends_at_once(start, call, tls):
    gunicorn = start(Gunicorn, "-k", WORKER, "-w", "2", "--graceful-timeout", "60", *tls, "tokens:Tokens")
    gunicorn.workers(2)
    client = call(port_of(gunicorn))
    first = client.call("one", timeout=PATIENCE)
    began = time.monotonic()
    os.kill(first, signal.SIGTERM)
    assert str(first) in gunicorn.wait_for(EXITING)
    assert time.monotonic() - began < 10
    assert client.call("two", timeout=PATIENCE) != first
    assert client.stats["lost"] == 0
    assert gunicorn.stop() == 0
    assert "SIGKILL" not in gunicorn.log


def test_a_stuck_call_does_not_hold_a_worker_until_it_is_killed(start, call, tls):
    gunicorn = start(Gunicorn, "-k", WORKER, "--graceful-timeout", "3", *tls, "apps:Stuck")
    client = call(port_of(gunicorn))
    with pytest.raises(erps.CallTimeout):
        client.call("never", timeout=0.2)
    gunicorn.workers(1)
    assert gunicorn.stop() == 0
    assert "SIGKILL" not in gunicorn.log


def test_every_kind_of_bind_is_served_and_a_plain_port_is_warned_of(start, call, tmp_path):
    path = tmp_path / "erps.sock"
    words = ["-b", f"unix:{path}", "-b", "[::1]:0"]
    gunicorn = start(Gunicorn, "-k", WORKER, *words, "tokens:Tokens")
    told = gunicorn.wait_for(r"Listening at: (.*) \(\d+\)")[0]
    found = re.findall(r"http://(\S+?):(\d+)(?=[,\s]|$)", told)
    addresses = [*((host.strip("[]"), int(port)) for host, port in found), str(path)]
    assert len(addresses) == 3
    pids = {call(address, erps.Tcp()).call(f"{address}", timeout=PATIENCE) for address in addresses}
    assert len(pids) == 1
    assert "there is no certificate: the lines are plain TCP" in gunicorn.log
    assert "set certfile, keyfile, ca_certs and cert_reqs = 2" in gunicorn.log
    assert gunicorn.stop() == 0
    assert not path.exists()


def test_lines_over_all_sockets_of_a_worker_share_worker_connections(start, call):
    gunicorn = start(Gunicorn, "-k", WORKER, "-b", "127.0.0.1:0", "--worker-connections", "1", "tokens:Tokens")
    told = gunicorn.wait_for(r"Listening at: (.*) \(\d+\)")[0]
    one, two = re.findall(r":(\d+)(?=[,\s]|$)", told)
    call(("127.0.0.1", int(one)), erps.Tcp())
    full = erps.Client(("127.0.0.1", int(two)), identifier="tokens", transport=erps.Tcp(), heal=False)
    with full, pytest.raises(erps.Disconnected) as caught:
        full.wait_connected(timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, erps.Overloaded)


def test_hooks_and_the_access_log_have_one_line_for_each_call(start, call, tls, tmp_path):
    (tmp_path / "conf.py").write_text(CONF)
    gunicorn = start(Gunicorn, "-c", "conf.py", "-k", WORKER, *tls, "tokens:Tokens")
    client = call(port_of(gunicorn))
    client.call("token", timeout=PATIENCE)
    client.call("odd", timeout=PATIENCE)
    gunicorn.wait_for("Exception in pre_request hook")
    os.rename(tmp_path / "access.log", tmp_path / "access.old")
    gunicorn.send(signal.SIGUSR1)
    gunicorn.wait_for("Handling signal: usr1")
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "access.log").exists() or not (tmp_path / "access.log").read_text():
        assert time.monotonic() < deadline, "the log was not opened anew"
        client.call("again", timeout=PATIENCE)
    assert gunicorn.stop() == 0
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes[:5] == ["init 1", "pre CALL tokens token", "post reply True", "pre CALL tokens odd", "post reply True"]
    assert notes[-1] == "exit"
    line = (tmp_path / "access.old").read_text().splitlines()[0]
    assert re.fullmatch(r"127\.0\.0\.1 CN=alice\S* .*\[.*\] tokens \"'token'\" reply 0\.\d{6}", line), line


def test_a_hub_that_is_blocked_for_longer_than_timeout_has_its_worker_replaced(start, call, tls):
    gunicorn = start(Gunicorn, "-k", WORKER, "--timeout", "2", *tls, "tokens:Tokens")
    client = call(port_of(gunicorn))
    with pytest.raises(erps.CallExit):
        client.call(("block", 60.0), timeout=PATIENCE)
    gunicorn.wait_for("WORKER TIMEOUT")
    gunicorn.workers(2)
    assert isinstance(client.call("again", timeout=PATIENCE, wait=True), int)


def test_a_factory_sets_options_and_its_clients_move_when_they_are_old(start, call, tls):
    gunicorn = start(Gunicorn, "-k", WORKER, *tls, "apps:make")
    client = call(port_of(gunicorn))
    deadline = time.monotonic() + PATIENCE
    while client.stats["moves"] < 2:
        assert time.monotonic() < deadline
        client.call(f"{time.monotonic()}", timeout=PATIENCE)
    assert client.stats["lost"] == 0


@pytest.mark.parametrize("how", ["--preload", "--reload"])
def test_it_serves_preloaded_and_reloads_what_has_changed(start, call, tls, tmp_path, how):
    gunicorn = start(Gunicorn, "-k", WORKER, how, "--reload-engine", "poll", *tls, "apps:Tokens")
    client = call(port_of(gunicorn))
    first = client.call("one", timeout=PATIENCE)
    if how == "--preload":
        gunicorn.send(signal.SIGHUP)
    else:
        os.utime(tmp_path / "apps.py", (time.time() + 10, time.time() + 10))
    gunicorn.wait_for(EXITING)
    assert client.call("two", timeout=PATIENCE, wait=True) != first
    assert gunicorn.stop() == 0
    assert "Traceback" not in gunicorn.log


def test_a_second_master_takes_over_without_a_failed_call(start, call, tls):
    gunicorn = start(Script, "-k", WORKER, *tls, "tokens:Tokens")
    client = call(port_of(gunicorn))
    old = client.call("one", timeout=PATIENCE)
    gunicorn.send(signal.SIGUSR2)
    gunicorn.workers(2)
    successor = gunicorn.wait_for(r"Listening at: \S+ \((\d+)\)", 2)[1]
    gunicorn.send(signal.SIGTERM)
    new = old
    deadline = time.monotonic() + PATIENCE
    while new == old:
        assert time.monotonic() < deadline
        new = client.call(f"{time.monotonic()}", timeout=PATIENCE)
    assert gunicorn.process.wait(PATIENCE) == 0
    gunicorn.wait_for("Master has been promoted")
    assert client.stats["lost"] == 0
    os.kill(int(successor), signal.SIGTERM)
    assert gunicorn.end() == 0


def test_what_is_no_application_stops_the_boot_with_a_reason(start, tls):
    log = refused(start, "-k", WORKER, *tls, "apps:wsgi")
    assert "apps:wsgi is a WSGI application, which speaks HTTP; give a subclass of erps_gevent.Server" in log
    assert "App failed to load" in log


def test_a_certificate_that_cannot_be_used_stops_the_boot_with_a_reason(start, tls, certs):
    words = [certs.key("alice") if word == certs.key("server") else word for word in tls]
    log = refused(start, "-k", WORKER, *words, "tokens:Tokens")
    assert "does not belong to cert=" in log
    assert "Traceback" not in log


def test_the_worker_has_a_short_name(start, call, tls):
    if not any(point.name == "erps" for point in entry_points(group="gunicorn.workers")):
        pytest.skip("the package is not installed, and so its entry points are not")
    gunicorn = start(Gunicorn, "-k", "egg:erps-gevent#erps", *tls, "tokens:Tokens")
    assert isinstance(call(port_of(gunicorn)).call("one", timeout=PATIENCE), int)
