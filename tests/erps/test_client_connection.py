"""test/client_connection_test.exs of Erps 0.7.0: a client that finds no server.

Upstream a call then returns the atom :disconnected, which a server may return too, and a cast is lost in silence. Here
both say it, and the port asserts that.
"""

from __future__ import annotations

import pytest
from faces import free_port
from injected import Deaf, started

import erps_gevent as erps


@pytest.fixture
def client(plain_house):
    return started(plain_house, Deaf, ("127.0.0.1", free_port()))


def test_calls_result_in_disconnected_atom(client):
    """test/client_connection_test.exs:27. Contradicts a fix: it raises Disconnected, with the cause."""
    with pytest.raises(erps.Disconnected, match="refused") as caught:
        client.call("foo")
    assert caught.value.sent is False
    assert isinstance(caught.value.__cause__, erps.Disconnected)


def test_casts_don_t_fault(client):
    """test/client_connection_test.exs:34. Contradicts a fix: it raises Disconnected. The client lives on."""
    with pytest.raises(erps.Disconnected, match="refused") as caught:
        client.cast("foo")
    assert caught.value.sent is False
    assert client.is_alive()
