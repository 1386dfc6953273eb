"""Where session and connection meet: packets that cross each other, and errors that cannot be told as they are."""

from __future__ import annotations

import gevent
import gevent.event
import pytest
from faces import PATIENCE, House, Lab, wire

import erps_gevent as erps
from erps_gevent.wire.packet import Stamp, Type
from erps_gevent.wire.payloads import LEAST_SIZE
from erps_gevent.wire.refusals import Code
from erps_gevent.wire.session import ClientSession, State


@pytest.fixture
def house(certs):
    made = House(wire("tcp", certs))
    yield made
    made.close()


class Line:
    """A client by hand: a session and a socket."""

    def __init__(self, sock):
        self.sock = sock
        self.session = ClientSession(Stamp((1, 0, 3), "lab"))
        self.packets = []

    def open(self):
        self.sock.sendall(self.session.hello())
        while self.session.state is State.GREETING:
            self.read()
        return self

    def read(self):
        chunk = self.sock.recv(65536)
        self.packets += self.session.receive(chunk)
        assert self.session.error is None
        return chunk

    def read_to_the_end(self):
        with gevent.Timeout(PATIENCE):
            while self.read():
                continue
        return self.packets


@pytest.fixture
def line(house):
    return Line(house.raw(house.daemon(max_pending=1))).open()


def test_a_keepalive_and_a_bye_in_one_read_end_the_line_in_peace(line, caplog):
    line.sock.sendall(line.session.keepalive() + line.session.bye())
    assert [packet.type for packet in line.read_to_the_end()] == [Type.WELCOME, Type.KEEPALIVE]
    assert "Error" not in caplog.text


def test_calls_above_the_limit_and_a_bye_in_one_read_end_the_line_in_peace(line, caplog):
    calls = [line.session.call(("echo", number), None)[1] for number in range(3)]
    line.sock.sendall(b"".join(calls) + line.session.bye())
    refused = [(packet.ref, packet.value.code) for packet in line.read_to_the_end() if packet.type is Type.ERROR]
    assert refused[0] == (2, Code.OVERLOADED)
    assert "Error" not in caplog.text


class Slow(Lab, identifier="lab"):
    def init(self, begun, go_on):
        super().init()
        begun.set()
        go_on.wait()
        self.push("from init")


def test_a_client_that_says_bye_while_init_runs_is_let_go(house, caplog):
    begun, go_on = gevent.event.Event(), gevent.event.Event()
    daemon = house.daemon(Slow, begun, go_on)
    line = Line(house.raw(daemon))
    line.sock.sendall(line.session.hello())
    assert begun.wait(PATIENCE)
    line.sock.sendall(line.session.bye())
    go_on.set()
    line.read_to_the_end()
    assert "Error" not in caplog.text
    assert daemon.servers == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (erps.ErrorReply("kind", "message", object()), "cannot send data: the type object does not travel"),
        (erps.ErrorReply(404, "not found"), "the kind of an error is text, not int"),
    ],
)
def test_an_error_reply_that_cannot_be_sent_is_told_as_what_it_is(house, error, text):
    def act(server, from_):
        raise error

    client = house.client(house.daemon(Lab, {"act": act}))
    with pytest.raises(erps.ServerExit, match=text) as info:
        client.call(("act",), timeout=PATIENCE)
    assert info.value.kind == "EncodeError"


def test_an_exception_whose_text_is_no_unicode_is_told(house):
    def act(server, from_):
        raise ValueError("no such file: \udcff")

    client = house.client(house.daemon(Lab, {"act": act}))
    with pytest.raises(erps.ServerExit) as info:
        client.call(("act",), timeout=PATIENCE)
    assert (info.value.kind, info.value.message) == ("ValueError", "no such file: \\udcff")


@pytest.mark.parametrize("end", [erps.Client, Lab])
def test_an_end_takes_at_least_what_the_protocol_itself_needs(end):
    options = {"max_size": LEAST_SIZE - 1}
    with pytest.raises(erps.ConfigError, match=f"max_size .* {LEAST_SIZE}"):
        if end is Lab:
            erps.Daemon(("127.0.0.1", 0), Lab, transport=erps.Tcp(), **options)
        else:
            erps.Client(("127.0.0.1", 1), transport=erps.Tcp(), **options)
