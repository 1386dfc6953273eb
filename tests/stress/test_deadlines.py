"""A call with a timeout gives control back when the timeout says, whatever the other end does or does not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import monotonic
from typing import Any

import gevent
import pytest
from conftest import DaemonProcess, times
from gevent import socket as green
from support import Certs
from target import client_transport

import erps_gevent as erps

TIMEOUT = 0.2
LATE = 0.6  # seconds: three times the timeout, on a machine whose other core is busy


def returns_in_time(client: erps.Client, request: Any) -> None:
    took = []
    for _ in range(times(10, 50)):
        start = monotonic()
        with pytest.raises((erps.CallTimeout, erps.Disconnected)):
            client.call(request, timeout=TIMEOUT)
        took.append(monotonic() - start)
    took.sort()
    print(f"timeout {TIMEOUT} s: min {took[0]:.4f} median {median(took):.4f} max {took[-1]:.4f} s")
    assert took[-1] < LATE


@contextmanager
def backlog_full() -> Iterator[tuple[str, int]]:
    """An address that drops SYNs, as a black hole does: a listener whose backlog is full."""
    listener = green.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = green.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    try:
        yield listener.getsockname()
    finally:
        for sock in (*fillers, listener):
            sock.close()


def test_a_call_to_a_black_hole_returns_in_time(wire: str, certs: Certs) -> None:
    with backlog_full() as address:
        client = erps.Client(address, transport=client_transport(wire, str(certs.directory)), hub="here")
        returns_in_time(client, "anybody?")
        client.close()


def test_a_call_to_a_peer_that_accepts_and_is_silent_returns_in_time(wire: str, certs: Certs) -> None:
    listener = green.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    accepted = []
    acceptor = gevent.spawn(lambda: [accepted.append(listener.accept()) for _ in iter(int, 1)])
    client = erps.Client(listener.getsockname(), transport=client_transport(wire, str(certs.directory)), hub="here")
    returns_in_time(client, "anybody?")
    client.close()
    acceptor.kill()
    for sock, _ in accepted:
        sock.close()
    listener.close()


def test_a_call_to_a_stopped_daemon_returns_in_time(target: DaemonProcess) -> None:
    with target.client() as client:
        assert client.call(("echo", 1)) == 1
        target.send(signal.SIGSTOP)
        returns_in_time(client, ("echo", 2))
        target.send(signal.SIGCONT)
        assert client.call(("echo", 3), timeout=10) == 3


def test_a_call_to_a_handler_that_sleeps_returns_in_time(target: DaemonProcess) -> None:
    with target.client() as client:
        assert client.call(("echo", 1)) == 1
        sleeper = gevent.spawn(client.call, ("sleep", times(10, 50) * LATE), timeout=None)
        gevent.idle()
        returns_in_time(client, ("echo", 2))
        assert sleeper.get() == "slept"


def test_a_call_from_a_plain_thread_returns_in_time(target: DaemonProcess) -> None:
    client = erps.Client(
        ("127.0.0.1", target.port),
        transport=client_transport(target.wire, str(target.certs.directory)),
        identifier="target",
        hub="thread",
    )
    with client:
        assert client.call(("echo", 1)) == 1
        target.send(signal.SIGSTOP)
        returns_in_time(client, ("echo", 2))
        target.send(signal.SIGCONT)
