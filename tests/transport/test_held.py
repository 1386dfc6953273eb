"""What a forked child does to its copies of sockets, done here to a second copy in the same process."""

from __future__ import annotations

import os
import socket

import gevent
import pytest
from gevent import socket as green
from gevent.hub import get_hub
from gevent.monkey import get_original

from erps_gevent.transport import held
from erps_gevent.transport.sockets import PlainSocket


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch):
    """What other tests have left open is none of these tests'."""
    monkeypatch.setattr(held, "_held", type(held._held)())
    monkeypatch.setattr(held, "waits", {})


@pytest.fixture(params=[PlainSocket, green.socket], ids=["plain", "gevent's"])
def copies(request):
    """A connected socket, another descriptor of it that stands for the parent's, and the other end."""
    near, far = get_original("socket", "socketpair")()
    parents = os.dup(near.fileno())
    yield request.param(near.family, near.type, near.proto, near.detach()), parents, far
    far.close()
    os.close(parents)


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_an_abandoned_copy_is_closed_at_once_and_the_parent_talks_on(copies):
    sock, parents, far = copies
    descriptor = sock.fileno()
    held.abandon(sock)
    assert not is_open(descriptor)
    assert os.write(parents, b"on") == 2
    assert far.recv(2) == b"on"
    held.abandon(sock)


def test_all_that_is_held_is_abandoned(copies):
    sock, parents, _ = copies
    descriptor = sock.fileno()
    assert held.hold(sock) is sock
    held.abandon_all(None)
    assert not is_open(descriptor)
    assert is_open(parents)
    assert held.abandon_all(None) == []


def test_who_waits_for_one_is_stopped_in_the_hub_that_goes_on_and_left_alone_in_others(copies):
    sock, *_ = copies
    held.hold(sock)
    mine, others = get_hub().loop.io(sock.fileno(), 1), get_hub().loop.io(sock.fileno(), 1)
    held.waits.update({mine: get_hub(), others: object()})
    mine.start(int)
    others.start(int)
    kept = held.abandon_all(get_hub())
    assert not mine.active
    assert others.active
    assert {mine, others} <= {watcher for watcher, _ in kept}
    assert held.waits == {}
    others.stop()
    others.close()
    gevent.sleep(0)


def test_a_socket_that_nobody_has_any_more_is_not_held():
    held.hold(socket.socket()).close()
    assert len(held._held) == 0
