"""Which hub a client lives in, and what becomes of it when that hub's thread ends."""

from __future__ import annotations

import gevent
import pytest
from faces import PATIENCE, House, wire
from gevent.hub import get_hub
from gevent.monkey import is_module_patched
from greenlet import greenlet
from otp.kernel import Native

import erps_gevent as erps
from erps_gevent import client_hub
from erps_gevent.client_hub import _turns_here


def in_a_greenlet(function):
    return gevent.spawn(function).get()


PLACES = {
    "main": lambda function: function(),
    "greenlet": in_a_greenlet,
    "raw greenlet of a greenlet": lambda function: in_a_greenlet(lambda: greenlet(function).switch()),
    "native thread": lambda function: Native(function).result(),
    "greenlet of a native thread": lambda function: Native(in_a_greenlet, function).result(),
    "worker of gevent's pool": lambda function: get_hub().threadpool.apply(function),
}
# Where "auto" is "here": in an unpatched program, and in a patched one.
TURNS = {
    "main": (False, True),
    "greenlet": (True, True),
    "raw greenlet of a greenlet": (True, True),
    "native thread": (False, False),
    "greenlet of a native thread": (True, True),
    "worker of gevent's pool": (False, False),
}


@pytest.mark.parametrize("patched", [False, True], ids=["unpatched", "patched"])
@pytest.mark.parametrize("place", PLACES)
def test_the_hub_is_here_where_it_turns_and_the_hub_thread_elsewhere(place, patched, monkeypatch):
    monkeypatch.setattr(client_hub, "is_module_patched", lambda name: patched)
    assert PLACES[place](_turns_here) is TURNS[place][patched]


@pytest.mark.parametrize("place", PLACES)
def test_a_client_first_used_there_says_where_it_lives_and_works_everywhere(plain_house, place):
    daemon = plain_house.daemon()
    client = plain_house.client(daemon, hub="auto")
    assert PLACES[place](lambda: client.call(("echo", 1), timeout=PATIENCE)) == 1
    assert client.info()["hub"] == ("here" if TURNS[place][is_module_patched("threading")] else "thread")
    if place != "greenlet of a native thread":
        for other in PLACES.values():
            assert other(lambda: client.call(("echo", 2), timeout=PATIENCE)) == 2


@pytest.fixture(scope="module")
def orphanage(certs):
    """Makes clients of one daemon, whose end takes a second: nobody closes the sockets of orphans."""
    made = House(wire("tcp", certs))
    daemon = made.daemon()
    yield lambda: made.client(daemon, hub="auto")
    made.close()


@pytest.fixture
def orphan(orphanage):
    """A client whose hub was that of a thread that has ended."""
    client = orphanage()
    assert Native(in_a_greenlet, lambda: client.call(("echo", 1), timeout=PATIENCE)).result() == 1
    with gevent.Timeout(PATIENCE):
        while not client._lifeline.hub.dead:
            gevent.sleep(0.001)
    return client


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.call(1),
        lambda client: client.call(1, timeout=None),
        lambda client: client.cast(1),
        lambda client: client.connect(),
        lambda client: client.wait_connected(),
        lambda client: client.disconnect(),
    ],
    ids=["call", "call for ever", "cast", "connect", "wait_connected", "disconnect"],
)
@pytest.mark.parametrize("place", ["main", "native thread"])
def test_a_client_whose_thread_has_ended_says_so(orphan, use, place):
    with gevent.Timeout(PATIENCE), pytest.raises(erps.Disconnected, match='hub="thread"') as caught:
        PLACES[place](lambda: use(orphan))
    assert caught.value.reason == "thread_ended"
    assert caught.value.sent is False


def test_a_client_whose_thread_has_ended_can_be_closed(orphan):
    orphan.close()
    orphan.close()
