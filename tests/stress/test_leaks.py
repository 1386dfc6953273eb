"""After many connects, timeouts and silent peers nothing is left over, and nobody else was delayed."""

from __future__ import annotations

from time import monotonic
from typing import Any

import gevent
import pytest
from conftest import Footprint, times
from gevent import socket as green

import erps_gevent as erps

MEBIBYTE = 1024 * 1024


class Echo(erps.Server):
    def handle_call(self, request, from_):
        return erps.NoReply() if request == "silence" else erps.Reply(request)


@pytest.fixture
def daemon(transports: tuple[Any, Any]) -> Any:
    with erps.Daemon(("127.0.0.1", 0), Echo, transport=transports[0]) as daemon:
        yield daemon


def test_many_connects_and_disconnects_leave_nothing_behind(daemon: erps.Daemon, transports: tuple[Any, Any]) -> None:
    def come_and_go(count: int) -> None:
        for number in range(count):
            with erps.Client(daemon.address, transport=transports[1], hub="here") as client:
                assert client.call(number) == number

    come_and_go(50)
    before = Footprint()
    come_and_go(times(300, 10_000))
    gevent.sleep(0.1)
    after = Footprint()
    assert daemon.servers == []
    assert after.greenlets <= before.greenlets
    assert after.descriptors <= before.descriptors
    grown = after.memory - before.memory
    print(f"grown by {grown / MEBIBYTE:.1f} MiB")
    assert grown < 12 * MEBIBYTE


def test_many_timeouts_leave_nothing_behind(daemon: erps.Daemon, transports: tuple[Any, Any]) -> None:
    with erps.Client(daemon.address, transport=transports[1], hub="here") as client:

        def give_up(count: int) -> None:
            for _ in range(count):
                with pytest.raises(erps.CallTimeout):
                    client.call("silence", timeout=0.002)

        give_up(50)
        before = Footprint()
        gevent.joinall([gevent.spawn(give_up, times(100, 1000)) for _ in range(10)], raise_error=True)
        assert client.call("after") == "after"
        after = Footprint()
        assert client.stats["pending"] == 0
        assert [server.pending for server in daemon.servers] == [0]
        assert after.greenlets <= before.greenlets
        assert after.descriptors <= before.descriptors
        assert after.memory - before.memory < 12 * MEBIBYTE


def test_a_thousand_silent_peers_do_not_delay_an_honest_client(
    daemon: erps.Daemon, transports: tuple[Any, Any]
) -> None:
    def handshake() -> float:
        start = monotonic()
        with erps.Client(daemon.address, transport=transports[1], hub="here") as client:
            assert client.call("hello") == "hello"
            return monotonic() - start

    alone = min(handshake() for _ in range(5))
    silent = []
    for _ in range(1000):
        peer = green.create_connection(daemon.address)
        silent.append(peer)
    crowded = min(handshake() for _ in range(5))
    print(f"connect and call: {alone * 1000:.1f} ms alone, {crowded * 1000:.1f} ms among a thousand silent peers")
    assert len(daemon.servers) == 0
    # Three times, and what a scheduler may add on a busy machine.
    assert crowded < alone * 3 + 0.05
    for peer in silent:
        peer.close()
