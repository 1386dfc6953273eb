"""Every error of the tree, provoked for real: its type, its facts, its cause, and whether a stranger can act on it.

Not here, because nothing raises them yet: AlreadyRegistered, MaxChildren, NotFound and TaskTimeout, which come with
registries, supervisors and tasks.
"""

from __future__ import annotations

import datetime as dt
import logging
import pickle
from typing import Any

import gevent
import pytest
from faces import PATIENCE, VERSIONS, Gate, Lab, LabClient, Notes, free_port, tls, until
from support import MS, Certs, issue

import erps_gevent as erps
from erps_gevent import Ignore, NoReply, Reply, Stop


def failure(client: Any, request: Any = ("echo", 1), kind: type[BaseException] = erps.CallExit, **options: Any) -> Any:
    """What a call raises. Whatever it is, it pickles with its sentence."""
    options.setdefault("timeout", PATIENCE)
    with pytest.raises(kind) as caught:
        client.call(request, **options)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert str(again) == str(caught.value)
    return caught.value


def refused(client: Any, kind: type[Exception], text: str) -> Any:
    """The call fails, surely unsent, by a Disconnected whose cause is a `kind` that says `text`; return that cause."""
    error = failure(client)
    assert type(error) is erps.Disconnected
    assert error.sent is False
    assert error.request == ("echo", 1)
    assert isinstance(error, ConnectionError)
    cause = error.__cause__
    assert type(cause) is kind
    assert text in str(cause)
    assert str(cause) in str(error)
    assert client.info()["cause"] is cause
    return cause


@pytest.fixture
def noted():
    return Notes()


# What the transport finds out.

secure = pytest.mark.parametrize("kind", sorted(VERSIONS), indirect=True)


@secure
def test_the_server_is_of_another_authority(house, impostor_certs, noted):
    daemon = house.daemon(transport=tls(house.wire.kind, impostor_certs, "server", True))
    cause = refused(house.client(daemon, noted), erps.Disconnected, "issued by an authority that is not in ca=")
    assert cause.reason == "unknown_ca"
    assert "pass the certificate of the authority" in str(cause)
    assert cause.__cause__ is not None
    assert noted.wait("disconnect") == [cause]


@secure
def test_the_client_is_of_another_authority(house, certs, impostor_certs, caplog):
    impostor = tls(house.wire.kind, impostor_certs, "alice", False, ca=certs.ca)
    with caplog.at_level(logging.INFO, "erps_gevent"):
        daemon = house.daemon()
        cause = refused(
            house.client(daemon, transport=impostor), erps.Disconnected, "the server refused our certificate"
        )
        until(lambda: "was not let in" in caplog.text)
    assert cause.reason == "certificate_refused"
    assert "ca= does not hold" in str(cause)
    assert daemon.servers == []


@pytest.fixture(scope="session")
def expired_certs(tmp_path_factory) -> Certs:
    past = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    people = {"server": ("localhost", "127.0.0.1"), "alice": ("alice",)}
    return issue(tmp_path_factory.mktemp("expired"), people, not_after=past)


@secure
def test_the_certificate_of_the_server_has_expired(house, expired_certs):
    daemon = house.daemon(transport=tls(house.wire.kind, expired_certs, "server", True))
    believing = tls(house.wire.kind, expired_certs, None, False)
    cause = refused(house.client(daemon, transport=believing), erps.Disconnected, "has expired; it must be renewed")
    assert cause.reason == "certificate_expired"


@secure
def test_the_certificate_of_the_client_has_expired(house, certs, expired_certs):
    daemon = house.daemon(transport=tls(house.wire.kind, certs, "server", True, ca=expired_certs.ca))
    stale = tls(house.wire.kind, expired_certs, "alice", False, ca=certs.ca)
    cause = refused(house.client(daemon, transport=stale), erps.Disconnected, "refused our certificate")
    assert cause.reason == "certificate_refused"
    assert "expired" in str(cause)


@secure
def test_the_client_presents_no_certificate(house, certs):
    client = house.client(house.daemon(), transport=erps.OneWayTls(ca=certs.ca))
    cause = refused(client, erps.Disconnected, "pass cert= and key= to Tls(...)")
    assert cause.reason == "certificate_refused"
    with pytest.raises(erps.Disconnected):
        client.cast("lost without a word, if the line counted as up")


@secure
def test_the_certificate_is_for_another_name(house, certs):
    elsewhere = tls(house.wire.kind, certs, "alice", False, name="other.example")
    cause = refused(house.client(house.daemon(), transport=elsewhere), erps.Disconnected, "server_hostname=")
    assert cause.reason == "hostname_mismatch"
    assert "localhost" in str(cause)


@secure
def test_plaintext_to_a_tls_port(house, caplog):
    with caplog.at_level(logging.INFO, "erps_gevent"):
        client = house.client(house.daemon(), transport=erps.Tcp())
        cause = refused(client, erps.BadPacket, "this port speaks TLS")
        assert "transport=Tls(" in str(cause)
        until(lambda: "in clear to a TLS port" in caplog.text)


@secure
def test_tls_to_a_plaintext_port(house):
    client = house.client(house.daemon(transport=erps.Tcp()))
    cause = refused(client, erps.Disconnected, "does not speak TLS")
    assert cause.reason == "not_tls"
    assert "transport=Tcp()" in str(cause)


def test_a_refused_connection(house, hub):
    client = house.client(("127.0.0.1", free_port()), hub=hub)
    cause = refused(client, erps.Disconnected, "connection refused: nothing listens there")
    assert cause.reason == "refused"
    assert isinstance(cause.__cause__, OSError)


def test_a_name_that_dns_does_not_know(house):
    cause = refused(house.client(("no-such-host.invalid", 4747)), erps.Disconnected, "cannot resolve the host name")
    assert cause.reason == "dns"
    assert "no-such-host.invalid" in str(cause)


def test_something_else_listens_there(plain_house):
    from gevent.server import StreamServer

    with StreamServer(("127.0.0.1", 0), lambda sock, _: sock.sendall(b"220 smtp.example ESMTP\r\n")) as other:
        other.start()
        refused(plain_house.client(other.address), erps.BadPacket, "and this one with b'220 '")


# What the dialogue finds out.


def test_a_wrong_identifier(house, hub, noted):
    client = house.client(house.daemon(), noted, identifier="lob", hub=hub)
    cause = refused(client, erps.IdentifierMismatch, "'lob'")
    assert "'lab'" in str(cause)
    assert "give both the same" in str(cause)
    assert isinstance(cause, erps.ProtocolError)
    assert noted.wait("disconnect") == [cause]
    gevent.sleep(0.1)
    assert client.stats["failed_attempts"] == 1


def test_a_wrong_version(house, hub):
    client = house.client(house.daemon(), version="2.0.0", hub=hub)
    cause = refused(client, erps.VersionMismatch, "2.0.0")
    assert "~=1.0" in str(cause)
    assert "widen versions=" in str(cause)


def test_a_packet_that_is_none(plain_house, noted):
    def babble(server, from_):
        server._connection.outbox.write(b"what?")
        return NoReply()

    client = plain_house.client(plain_house.daemon(Lab, {"babble": babble}), noted)
    error = failure(client, ("babble",))
    assert type(error) is erps.Disconnected
    assert error.sent is True
    assert type(error.__cause__) is erps.BadPacket
    assert noted.wait("disconnect") == [error.__cause__]


def test_a_packet_that_is_too_large(plain_house, noted):
    def shout(server, from_):
        server._connection.session.peer_max_size = 10**9
        server.push(b"x" * 100_000)
        return NoReply()

    client = plain_house.client(plain_house.daemon(Lab, {"shout": shout}), noted, max_size=1000)
    error = failure(client, ("shout",))
    assert error.sent is True
    assert type(error.__cause__) is erps.PacketTooLarge
    assert "max_size" in str(error.__cause__)


def test_a_value_that_is_not_safe(plain_house):
    # Tag 35 is a regular expression, which cbor2 would compile: ["null", re] as the payload of a push.
    def smuggle(server, from_):
        session = server._connection.session
        frame = session.push(["aaaaaaaa"])
        unsafe = frame.replace(b"\x81\x68aaaaaaaa", b"\xd8\x23\x68aaaaaaa"[:10])
        assert unsafe != frame
        server._connection.outbox.write(unsafe)
        return NoReply()

    client = plain_house.client(plain_house.daemon(Lab, {"smuggle": smuggle}))
    error = failure(client, ("smuggle",))
    assert isinstance(error.__cause__, erps.ProtocolError)


def test_a_signed_packet_where_no_keys_were_given(plain_house):
    def sign(server, from_):
        connection = server._connection
        frame = bytearray(connection.session.push(1))
        frame[48:64] = b"k" * 16
        connection.outbox.write(bytes(frame))
        return NoReply()

    client = plain_house.client(plain_house.daemon(Lab, {"sign": sign}))
    error = failure(client, ("sign",))
    assert type(error.__cause__) is erps.SignatureMismatch
    assert "signing=" in str(error.__cause__)


# Configuration and encoding.


def test_no_transport_is_a_config_error():
    with pytest.raises(erps.ConfigError, match=r"pass transport=Tls\(ca=..., cert=..., key=...\)") as caught:
        erps.Client(("localhost", 4747))
    assert isinstance(caught.value, ValueError)


def test_a_request_that_cannot_be_sent_is_refused_here(house, hub):
    client = house.client(house.daemon(), hub=hub)
    client.wait_connected(PATIENCE)
    error = failure(client, ("echo", {"when": object()}), erps.EncodeError)
    assert isinstance(error, TypeError)
    assert "request[1]['when']" in str(error)
    assert "object" in str(error)
    with pytest.raises(erps.EncodeError, match=r"request\[0\]"):
        client.cast([object()])
    assert client.stats == {**client.stats, "connects": 1, "pending": 0}


def test_a_request_that_is_too_large_is_refused_here(house):
    client = house.client(house.daemon(max_size=1000))
    client.wait_connected(PATIENCE)
    error = failure(client, ("echo", b"x" * 2000), erps.EncodeError)
    assert "request takes 20" in str(error)
    assert "the server takes 1000; send less at once, or raise max_size there" in str(error)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


UNSENDABLE = {"cannot": lambda: object(), "too large": lambda: b"x" * 100_000}


@pytest.mark.parametrize("value", UNSENDABLE)
def test_a_returned_reply_that_cannot_be_sent_ends_the_server(house, value, noted):
    daemon = house.daemon(Lab, {"get": lambda server, from_: Reply(UNSENDABLE[value]())}, noted)
    client = house.client(daemon, max_size=10_000)
    error = failure(client, ("get",))
    assert type(error) is erps.ServerExit
    assert error.kind == "EncodeError"
    assert error.sent is True
    assert error.request == ("get",)
    assert "reply" in error.message
    assert isinstance(noted.wait("terminate")[0], erps.EncodeError)
    until(lambda: client.stats["lost"] == 1)
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1


@pytest.mark.parametrize("value", UNSENDABLE)
def test_a_reply_from_elsewhere_that_cannot_be_sent_raises_there_too(house, value):
    raised = []

    def later(server, from_):
        def replier():
            try:
                from_.reply(UNSENDABLE[value]())
            except erps.EncodeError as error:
                raised.append(error)

        gevent.spawn(replier)
        return NoReply()

    client = house.client(house.daemon(Lab, {"later": later}), max_size=10_000)
    error = failure(client, ("later",))
    assert type(error) is erps.ServerExit
    assert error.kind == "EncodeError"
    assert error.message == str(raised[0])
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert client.stats["connects"] == 1


# How a server process ends.


class Boom(Exception):
    pass


def boom(server, from_):
    raise Boom("out of eggs")


def test_a_handler_that_raises(house, hub, noted, caplog):
    client = house.client(house.daemon(Lab, {"boom": boom}), noted, hub=hub)
    error = failure(client, ("boom",))
    assert type(error) is erps.ServerExit
    assert (error.kind, error.message, error.reason) == ("Boom", "out of eggs", None)
    assert error.sent is True
    assert error.request == ("boom",)
    assert "Boom: out of eggs" in str(error)
    assert "Traceback" not in str(error)
    (told,) = noted.wait("disconnect")
    assert (told.kind, told.message) == ("Boom", "out of eggs")
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1
    assert caplog.text.count("Traceback") == 1


def test_a_traceback_is_shown_to_whom_it_is_meant_for(house):
    client = house.client(house.daemon(Lab, {"boom": boom}, expose_tracebacks=True))
    error = failure(client, ("boom",))
    assert error.kind == "Boom"
    assert "Traceback" in error.message
    assert "in boom" in error.message
    assert "Boom: out of eggs" in error.message


def test_neighbours_on_the_line_are_told_the_same(house):
    acts = {"boom": boom, "never": lambda server, from_: NoReply()}
    client = house.client(house.daemon(Lab, acts))
    client.wait_connected(PATIENCE)
    other = gevent.spawn(failure, client, ("never",))
    until(lambda: client.stats["pending"] == 1)
    error = failure(client, ("boom",))
    told = other.get(timeout=PATIENCE)
    assert type(told) is erps.ServerExit
    assert (told.kind, told.request) == ("Boom", ("never",))
    assert error.request == ("boom",)
    assert told is not error


@pytest.mark.parametrize("answer", [42, None, "Reply", (1, 2), Reply], ids=repr)
def test_an_answer_that_is_none(house, answer):
    client = house.client(house.daemon(Lab, {"odd": lambda server, from_: answer}))
    error = failure(client, ("odd",))
    assert type(error) is erps.BadReturn
    assert error.kind == "BadReturn"
    assert error.sent is True
    assert "Lab.handle_call returned" in error.message
    assert "Reply" in error.message
    assert "NoReply" in error.message
    assert "Stop" in error.message
    assert error.message in str(error)


REASONS = [
    (erps.NORMAL, "normal"),
    (erps.SHUTDOWN, "shutdown"),
    (erps.Shutdown({"why": ["tired"]}), "shutdown"),
    (("gone", 7), "exit"),
    ("word", "exit"),
    (None, "exit"),
    (erps.KILLED, "killed"),
]


@pytest.mark.parametrize(("reason", "kind_"), REASONS, ids=str)
def test_exit_reasons_cross_the_wire(house, reason, kind_):
    client = house.client(house.daemon(Lab, {"stop": lambda server, from_: Stop(reason)}))
    error = failure(client, ("stop",))
    assert type(error) is erps.ServerExit
    assert error.reason == reason
    assert type(error.reason) is type(reason)
    assert error.kind == kind_


def test_an_exit_reason_that_cannot_be_sent_is_told_in_words(house):
    client = house.client(house.daemon(Lab, {"stop": lambda server, from_: Stop(object())}))
    error = failure(client, ("stop",))
    assert type(error) is erps.ServerExit
    assert error.reason is None
    assert "object object" in error.message


def test_an_exit_that_is_raised(house):
    def leave(server, from_):
        raise erps.Exit(erps.Shutdown("early"))

    client = house.client(house.daemon(Lab, {"leave": leave}))
    assert failure(client, ("leave",)).reason == erps.Shutdown("early")


def test_the_handler_refuses(house, hub):
    def refuse(server, from_):
        raise erps.ErrorReply("sold_out", "come back on Monday", {"sku": (1, 2)})

    client = house.client(house.daemon(Lab, {"buy": refuse}), hub=hub)
    error = failure(client, ("buy",), erps.ErrorReply)
    assert (error.kind, error.message, error.data) == ("sold_out", "come back on Monday", {"sku": (1, 2)})
    assert str(error) == "sold_out: come back on Monday"
    assert not isinstance(error, erps.CallExit)
    assert client.stats["connects"] == 1


def test_a_refusal_that_cannot_be_sent(house):
    def refuse(server, from_):
        raise erps.ErrorReply("odd", data=object())

    client = house.client(house.daemon(Lab, {"odd": refuse}))
    error = failure(client, ("odd",))
    assert type(error) is erps.ServerExit
    assert error.kind == "EncodeError"
    assert "data" in error.message


# How a server process does not start.


class Starter(erps.Server, identifier="lab"):
    def init(self, what):
        return what()


def raising():
    raise Boom("no eggs to begin with")


STARTS = [
    (raising, erps.StartError, "Boom: no eggs to begin with"),
    (lambda: Stop("not today"), erps.StartError, "'not today'"),
    (Ignore, erps.StartIgnored, "Ignore()"),
    (lambda: 42, erps.StartError, "init returned 42"),
]


@pytest.mark.parametrize(("what", "error", "text"), STARTS, ids=["raise", "stop", "ignore", "bad"])
def test_an_init_that_does_not_succeed(house, hub, what, error, text, noted):
    client = house.client(house.daemon(Starter, what), noted, hub=hub)
    cause = refused(client, error, text)
    assert "Starter" in str(cause)
    assert noted.wait("disconnect") == [cause]


def test_the_reason_of_an_init_that_stopped_is_known(house):
    client = house.client(house.daemon(Starter, lambda: Stop(("closed", "Mondays"))))
    assert refused(client, erps.StartError, "Mondays").reason == ("closed", "Mondays")


# Overload.


@pytest.mark.parametrize("limit", [{"max_connections": 1}, {"spawn": 1}], ids=str)
def test_a_full_house(house, hub, limit):
    daemon = house.daemon(**limit)
    house.client(daemon).wait_connected(PATIENCE)
    cause = refused(house.client(daemon, hub=hub), erps.Overloaded, "every server is taken")
    assert cause.retry_after == 1.0
    assert cause.sent is False
    assert "try again later" in str(cause)


def test_too_many_pending_calls_by_the_servers_count(house):
    daemon = house.daemon(Lab, {"never": lambda server, from_: NoReply()}, max_pending=2)
    client = house.client(daemon)
    client.wait_connected(PATIENCE)
    for _ in range(2):
        gevent.spawn(client.call, ("never",), timeout=0.5).rawlink(lambda _: None)
    until(lambda: client.stats["pending"] == 2)
    error = failure(client)
    assert type(error) is erps.Overloaded
    assert error.sent is False
    assert error.request == ("echo", 1)
    assert "wait for replies, or raise max_pending" in str(error)
    client._lifeline.healer.line.max_pending = 1000
    error = failure(client)
    assert type(error) is erps.Overloaded
    assert error.request == ("echo", 1)


# Time, and lines that end.


def test_an_answer_that_does_not_come(house, hub):
    client = house.client(house.daemon(Lab, {"never": lambda server, from_: NoReply()}), hub=hub)
    client.wait_connected(PATIENCE)
    error = failure(client, ("never",), timeout=300 * MS)
    assert type(error) is erps.CallTimeout
    assert isinstance(error, TimeoutError)
    assert error.sent is True
    assert error.request == ("never",)
    assert error.reason == "timeout"
    assert "0.3 s" in str(error)


def test_a_line_that_does_not_come(plain_house, hub, late_word):
    silent = plain_house.daemon()
    silent.stop_accepting()
    error = failure(plain_house.client(silent, hub=hub), timeout=30 * MS)
    assert type(error) is erps.CallTimeout
    assert error.sent is False
    assert "no line to LabClient of" in str(error)


def test_a_line_that_ends_while_a_call_is_out(house, hub):
    gate = Gate()
    daemon = house.daemon(Lab, {"gate": gate})
    client = house.client(daemon, hub=hub)
    client.wait_connected(PATIENCE)
    call = gevent.spawn(failure, client, ("gate",))
    gate.entered.wait(PATIENCE)
    for live in daemon.servers:
        live.pid.process.inbox.drop()
    error = call.get(timeout=PATIENCE)
    assert type(error) is erps.Disconnected
    assert error.sent is True
    assert error.request == ("gate",)
    assert isinstance(error.__cause__, erps.Disconnected)
    assert "before the answer came" in str(error)
    gate.open()


# Local processes.


def test_calls_to_nobody_and_to_oneself():
    pid = Lab.start({"self": lambda server, from_: Reply(server.pid.call(("echo", 1)))})
    with pytest.raises(erps.CallExit) as caught:
        pid.call(("self",))
    assert isinstance(caught.value.__cause__, erps.CallingSelf)
    with pytest.raises(erps.NoProc) as dead:
        pid.call(("echo", 1))
    assert dead.value.reason is erps.NOPROC
    assert dead.value.sent is False
    with pytest.raises(erps.NoProc, match="no process 'nobody'"):
        erps.call("nobody", 1)
    with pytest.raises(erps.NoProc):
        erps.call(None, 1)


def test_a_name_that_is_taken():
    pid = Lab.start(name="the lab")
    with pytest.raises(erps.AlreadyStarted, match="the lab") as caught:
        Lab.start(name="the lab")
    assert caught.value.pid is pid
    erps.stop(pid)


def test_every_error_is_in_the_tree():
    named = [getattr(erps, name) for name in erps.__all__]
    errors = [thing for thing in named if isinstance(thing, type) and issubclass(thing, BaseException)]
    assert len(errors) == 27
    assert [error for error in errors if not issubclass(error, erps.ErpsError)] == [erps.Exit]
    assert not issubclass(erps.Exit, Exception)
    assert LabClient.__mro__[1] is erps.Client
