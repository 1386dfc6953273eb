"""`erps serve`: what it is asked for, and how a process of it is served and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
from faces import PATIENCE
from support import child_environ

import erps_gevent as erps
from erps_gevent.errors import ConfigError
from erps_gevent.integrations import serve
from erps_gevent.integrations.serve import Settings, daemons_of, listener_of, shown, transport_of

APP = """
import gevent.monkey
import erps_gevent as erps

class Echo(erps.Server, identifier="echo"):
    def handle_call(self, request, from_):
        match request:
            case "patched":
                return erps.Reply(gevent.monkey.is_module_patched("socket"))
            case "never":
                return erps.NoReply()
        return erps.Reply(request)

def make(listener, transport):
    return erps.Daemon(listener, Echo, transport=transport)
"""


class Process:
    """`erps serve` in a process of its own, and its log."""

    def __init__(self, directory, *words, pass_fds=()):
        command = [sys.executable, "-m", "erps_gevent.cli", "serve", *words]
        self.child = subprocess.Popen(
            command, cwd=directory, env=child_environ(), stderr=subprocess.PIPE, text=True, pass_fds=pass_fds
        )
        self.log = ""

    def hears(self, what):
        """Read its log until it says `what`; that line."""
        for line in self.child.stderr:
            self.log += line
            if what in line:
                return line
        raise AssertionError(f"it never said {what!r}: {self.log}")

    def port(self):
        return int(self.hears("listening at").split()[-1].rpartition(":")[2])

    def end(self, *signums):
        for signum in signums:
            self.child.send_signal(signum)
        self.log += self.child.stderr.read()
        return self.child.wait(PATIENCE)


@pytest.fixture
def run(tmp_path):
    """Start `erps serve` with these words, beside the application."""
    (tmp_path / "app.py").write_text(APP)
    with ExitStack() as close:

        def start(*words, **options):
            process = Process(tmp_path, *words, **options)
            close.callback(process.child.stderr.close)
            close.callback(process.child.wait)
            close.callback(process.child.kill)
            return process

        yield start


@pytest.fixture
def client():
    with ExitStack() as close:

        def connected(address, transport=None):
            made = erps.Client(address, identifier="echo", transport=transport or erps.Tcp(), hub="here", reconnect=0.1)
            close.callback(made.close)
            made.wait_connected(timeout=PATIENCE)
            return made

        yield connected


def tls_words(certs):
    return ("--ca", certs.ca, "--cert", certs.cert("server"), "--key", certs.key("server"))


def test_it_serves_two_way_tls_and_ends_at_once_when_its_clients_have_moved(run, client, certs):
    process = run("app:Echo", "--bind", "127.0.0.1:0", *tls_words(certs))
    tls = erps.Tls(**certs.identity("alice"), server_hostname="localhost")
    made = client(("127.0.0.1", process.port()), tls)
    assert made.call("one", timeout=PATIENCE) == "one"
    assert made.call("patched", timeout=PATIENCE) is False
    made.close()
    assert process.end(signal.SIGTERM) == 0
    assert "asking the clients to move, for at most 30 s" in process.log
    assert "Traceback" not in process.log


def test_it_patches_when_it_is_asked_to(run, client):
    process = run("app:make", "--bind", "127.0.0.1:0", "--tcp", "--patch")
    assert client(("127.0.0.1", process.port())).call("patched", timeout=PATIENCE) is True


def test_a_client_that_cannot_move_is_left_after_the_drain_time(run, client):
    process = run("app:Echo", "--bind", "127.0.0.1:0", "--tcp", "--drain-time", "0.2")
    made = client(("127.0.0.1", process.port()))
    with pytest.raises(erps.CallTimeout):
        made.call("never", timeout=0.05)
    assert process.end(signal.SIGTERM) == 0


def test_it_goes_on_accepting_for_the_delay(run, client):
    process = run("app:Echo", "--bind", "127.0.0.1:0", "--tcp", "--delay", "1")
    port = process.port()
    process.child.send_signal(signal.SIGTERM)
    process.hears("going on to accept for 1 s")
    late = client(("127.0.0.1", port))
    assert late.call("late", timeout=PATIENCE) == "late"
    late.close()
    assert process.end() == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_do_not_wait_for_anybody(run, client, signum):
    process = run("app:Echo", "--bind", "127.0.0.1:0", "--tcp", "--drain-time", "600")
    client(("127.0.0.1", process.port()))
    assert process.end(signum) == 0
    assert "ending now" in process.log


def test_hup_and_usr1_end_nothing(run):
    process = run("app:Echo", "--bind", "127.0.0.1:0", "--tcp")
    process.port()
    process.child.send_signal(signal.SIGHUP)
    process.hears("renewed certificates are picked up without it")
    process.child.send_signal(signal.SIGUSR1)
    process.hears("* Greenlets")
    assert process.end(signal.SIGTERM) == 0


def test_it_listens_at_each_address_and_at_a_socket_that_was_handed_to_it(run, client, tmp_path):
    path = str(tmp_path / "s.sock")
    with socket.create_server(("127.0.0.1", 0)) as handed:
        words = ("--bind", path, "--bind", f"fd://{handed.fileno()}")
        process = run("app:Echo", *words, "--tcp", pass_fds=[handed.fileno()])
        assert path in process.hears("listening at")
        for address in (path, handed.getsockname()):
            assert client(address).call(1, timeout=PATIENCE) == 1
    assert process.end(signal.SIGINT) == 0
    assert not os.path.exists(path)


def test_an_address_that_is_taken_is_one_line_and_status_1(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = run("app:Echo", "--bind", f"127.0.0.1:{taken.getsockname()[1]}", "--tcp")
        assert process.end() == 1
    assert "erps: cannot listen at" in process.log
    assert "Traceback" not in process.log


def test_a_term_before_it_listens_is_heard():
    service = serve.Service(30.0, 0.0)
    service.drain()
    assert service.run() == 0


def settings(**changes):
    return Settings(**{"app": "app:Echo", "bind": ["127.0.0.1:0"], **changes})


@pytest.fixture
def app(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    del sys.modules["app"]


def test_the_limits_are_the_daemons(app):
    daemons = daemons_of(settings(tcp=True, bind=["127.0.0.1:0"] * 2, max_connections=7, max_connection_age=60.0))
    assert [daemon.options["max_connections"] for daemon in daemons] == [7, 7]
    assert [daemon.options["max_connection_age"] for daemon in daemons] == [60.0, 60.0]
    assert daemons[0].places is daemons[1].places


def test_a_factory_sets_its_own_limits(app):
    with pytest.raises(ConfigError, match="app:make is a factory: have it give max_connections= to the Daemon"):
        daemons_of(settings(app="app:make", tcp=True, max_connections=7))


def test_neither_tls_nor_tcp_is_an_error_that_says_both():
    with pytest.raises(ConfigError, match=r"--ca and --cert missing.*--tcp asks for plain TCP"):
        transport_of(settings())
    with pytest.raises(ConfigError, match=r"--tcp is plain TCP, and --ca is for TLS"):
        transport_of(settings(tcp=True, ca="ca.pem"))


def test_an_address_is_text_and_fd_is_a_socket():
    assert listener_of("0.0.0.0:4747") == "0.0.0.0:4747"
    with socket.create_server(("127.0.0.1", 0)) as handed:
        taken = listener_of(f"fd://{handed.fileno()}")
        assert taken.getsockname() == handed.getsockname()
        taken.close()


def test_addresses_are_shown_as_they_are_written():
    assert shown(("127.0.0.1", 1)) == "127.0.0.1:1"
    assert shown(("::1", 1, 0, 0)) == "[::1]:1"
    assert shown("/run/x.sock") == "/run/x.sock"
