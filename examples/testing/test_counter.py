"""Tests of a server and a client: each over memory, TCP and two-way TLS, and without a port or a certificate to find.

Without the fixture erps_transport they run over memory alone.
"""

import pytest
from counter import Counter, CounterClient
from gevent.queue import Queue

import erps_gevent as erps
from erps_gevent.testing import cut


@pytest.fixture(params=["memory", "tcp", "tls"])
def erps_transport(request):
    return request.param


@pytest.fixture
def daemon(erps_daemon):
    return erps_daemon(Counter, 0)


@pytest.fixture
def counter(daemon, erps_client):
    return erps_client(daemon, CounterClient)


def test_it_counts(counter):
    assert counter.add(3) == 3
    assert counter.add(4) == 7


def test_every_client_has_a_count_of_its_own(counter, daemon, erps_client):
    counter.add(3)
    assert erps_client(daemon, CounterClient).add(1) == 1


def test_it_refuses_what_it_does_not_know_and_lives_on(counter):
    with pytest.raises(erps.ErrorReply, match="unknown_request"):
        counter.call("subtract")
    assert counter.add(1) == 1


def test_it_tells_of_every_change(daemon, erps_client):
    changes = Queue()
    counter = erps_client(daemon, CounterClient, changed=changes.put)
    counter.add(3)
    counter.add(4)
    assert [changes.get(timeout=1.0), changes.get(timeout=1.0)] == [3, 7]


def test_after_the_line_was_lost_it_counts_from_the_start(daemon, erps_client):
    losses = Queue()
    counter = erps_client(daemon, CounterClient, lost=losses.put)
    assert counter.add(3) == 3
    cut(counter)
    assert counter.add(3) == 3
    assert losses.get(timeout=1.0).reason == "reset"


# Who somebody is shows in a certificate, so the rest is over TLS, whatever the others are over.
over_tls = pytest.mark.parametrize("erps_transport", ["tls"])


@over_tls
def test_admin_may_set_it_back(daemon, erps_client, erps_tls):
    counter = erps_client(daemon, CounterClient, transport=erps_tls.client("admin"))
    counter.add(3)
    counter.reset()
    assert counter.add(1) == 1


@over_tls
def test_nobody_else_may(daemon, erps_client, erps_tls):
    counter = erps_client(daemon, CounterClient, transport=erps_tls.client("bob"))
    with pytest.raises(erps.ErrorReply, match="forbidden: CN=bob"):
        counter.reset()
