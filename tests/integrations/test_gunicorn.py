"""The parts of ErpsWorker that need no gunicorn process: settings, transports, the access log and hooks."""

from __future__ import annotations

import logging
import ssl
import types

import pytest
from faces import PATIENCE, Lab, until

import erps_gevent as erps
from erps_gevent.errors import ConfigError
from erps_gevent.observing import ObservedCall
from erps_gevent.transport.address import Peer

pytest.importorskip("gunicorn", reason="no gunicorn here; the extra has it: pip install 'erps_gevent[hosting]'")

from gunicorn.config import Config
from gunicorn.glogging import SafeAtoms

from erps_gevent.integrations.gunicorn import ACCESS_FORMAT, CallObserver, ErpsWorker, Request, atoms, transport_of


@pytest.fixture
def cfg(certs):
    """gunicorn's settings: `cfg(certfile=...)`; with two_way=True those of two-way TLS."""

    def made(two_way=False, **settings):
        cfg = Config()
        if two_way:
            files = {"certfile": certs.cert("server"), "keyfile": certs.key("server"), "ca_certs": certs.ca}
            settings = {"cert_reqs": int(ssl.CERT_REQUIRED), **files, **settings}
        for name, value in settings.items():
            cfg.set(name, value)
        return cfg

    return made


class Log:
    """What a worker uses of gunicorn's logger."""

    atoms_wrapper_class = SafeAtoms
    access_log_enabled = False

    def __init__(self):
        self.said = []
        self.access_log = logging.Logger("access")
        self.access_log.addHandler(self.handler())

    def handler(self):
        keeper = logging.Handler()
        keeper.emit = lambda record: self.said.append(record.getMessage())
        return keeper

    def now(self):
        return "[now]"

    def warning(self, text, *args):
        self.said.append(text % args if args else text)

    exception = warning


@pytest.fixture
def log():
    return Log()


def test_no_certificate_is_plain_tcp_and_a_warning(cfg, log):
    assert isinstance(transport_of(cfg()), erps.Tcp)
    ErpsWorker.check_config(cfg(bind=["127.0.0.1:1"]), log)
    assert "plain TCP" in log.said[0]
    assert "cert_reqs = 2" in log.said[0]


def test_a_unix_socket_without_a_certificate_needs_no_warning(cfg, log):
    ErpsWorker.check_config(cfg(bind=["unix:/run/x.sock"]), log)
    assert log.said == []


def test_cert_reqs_2_is_two_way_and_no_warning(cfg, log):
    assert isinstance(transport_of(cfg(two_way=True)), erps.Tls)
    ErpsWorker.check_config(cfg(two_way=True), log)
    assert log.said == []


def test_a_certificate_without_cert_reqs_is_one_way_and_a_warning(cfg, log):
    settings = cfg(two_way=True, cert_reqs=0)
    assert isinstance(transport_of(settings), erps.OneWayTls)
    ErpsWorker.check_config(settings, log)
    assert "clients are not asked for a certificate" in log.said[0]


def test_the_hook_of_gunicorn_makes_the_context(cfg):
    made = []

    def hook(conf, default_factory):
        made.append(default_factory())
        return made[0]

    assert repr(transport_of(cfg(two_way=True, ssl_context=hook))) == "Tls(context=...)"
    assert made[0].verify_mode == ssl.CERT_REQUIRED


def test_ciphers_are_gunicorns_too(cfg):
    assert repr(transport_of(cfg(two_way=True, ciphers="ECDHE+AESGCM"))) == "Tls(context=...)"


def test_what_cannot_be_used_is_one_line_for_gunicorn_to_print(cfg, log, certs):
    wrong = cfg(two_way=True, keyfile=certs.key("alice"))
    with pytest.raises(ConfigError, match="does not belong to cert="):
        transport_of(wrong)
    with pytest.raises(RuntimeError, match="does not belong to cert=") as caught:
        ErpsWorker.check_config(wrong, log)
    assert isinstance(caught.value.__cause__, ConfigError)


def call_of(outcome="reply", **peer):
    return ObservedCall(Peer(("10.1.2.3", 4000), **peer), ("add", 3), outcome=outcome, seconds=1.25)


@pytest.mark.parametrize(
    ("peer", "who"), [({}, "-"), ({"subject": "CN=alice"}, "CN=alice"), ({"subject": "CN=a", "key_id": "k1"}, "k1")]
)
def test_a_line_of_the_access_log_says_who_asked_what_and_what_became_of_it(peer, who):
    line = ACCESS_FORMAT % SafeAtoms(atoms(call_of(**peer), "counter", "[now]"))
    assert line == f"10.1.2.3 {who} [now] counter \"('add', 3)\" reply 1.250000"


def test_gunicorns_letters_for_time_are_there():
    found = atoms(call_of(), "counter", "[now]")
    assert (found["T"], found["M"], found["D"], found["L"]) == (1, 1250, 1_250_000, "1.250000")
    assert atoms(ObservedCall(Peer("unix:pid=1,uid=0"), 1), "x", "")["h"] == "unix:pid=1,uid=0"


@pytest.fixture
def worker(cfg, log, plain_house):
    """What CallObserver uses of a worker, with a daemon: `worker(pre_request=...)`."""

    def made(**settings):
        daemon = erps.Daemon(("127.0.0.1", 0), Lab, transport=erps.Tcp())
        plain_house.daemons.append(daemon)
        return types.SimpleNamespace(cfg=cfg(**settings), log=log, daemons=[daemon])

    return made


def test_nobody_observes_what_nobody_asked_for(worker):
    assert CallObserver.wanted(worker()) is None


def test_hooks_are_given_the_call_and_its_outcome(worker, plain_house):
    seen = []
    made = worker(
        pre_request=lambda worker, req: seen.append((worker, req)),
        post_request=lambda worker, req, environ, resp: seen.append((worker, req, environ, resp.status)),
    )
    (daemon,) = made.daemons
    daemon.hosted(observer=CallObserver.wanted(made))
    daemon.start()
    plain_house.client(daemon).call(("echo", 1), timeout=PATIENCE)
    until(lambda: len(seen) == 2)
    request = seen[0][1]
    assert isinstance(request, Request)
    assert (request.method, request.path, request.uri, request.request) == ("CALL", "lab", "lab", ("echo", 1))
    assert seen == [(made, request), (made, request, {}, "reply")]


def test_a_hook_that_fails_is_logged_and_the_call_goes_on(worker, plain_house, log):
    def broken(worker, req):
        raise ZeroDivisionError

    made = worker(pre_request=broken)
    (daemon,) = made.daemons
    daemon.hosted(observer=CallObserver.wanted(made))
    daemon.start()
    assert plain_house.client(daemon).call(("echo", 1), timeout=PATIENCE) == 1
    assert log.said == ["Exception in pre_request hook"]


def test_an_access_log_with_a_format_of_the_users_has_that(worker, log):
    log.access_log_enabled = True
    observer = CallObserver.wanted(worker(access_log_format="%(u)s: %(r)s %(x)s"))
    observer.ended(call_of(subject="CN=alice"))
    assert log.said == ["CN=alice: ('add', 3) -"]
