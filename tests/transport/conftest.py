"""Listeners of every kind, transports of every kind, and both ends of a line."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transport.lines import VERSIONS, Authority, Ends, Place, limited

from erps_gevent.transport import sockets
from erps_gevent.transport.tcp import Tcp, Transport
from erps_gevent.transport.tls import OneWayTls, Tls


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def stranger() -> Authority:
    """An authority that nobody trusts."""
    return Authority()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    for stream in made.opened:
        stream.close()
    gc.collect()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    made: list[Place] = []

    def make(kind: str = "ipv4") -> Place:
        made.append(Place(kind, tmp_path))
        return made[-1]

    yield make
    for place in made:
        place.listener.close()


@pytest.fixture
def place(places: Callable[..., Place]) -> Place:
    return places("ipv4")


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> Tls:
    return authority.tls("localhost", "127.0.0.1", "::1", issue={"common_name": "server"})


@pytest.fixture(scope="session")
def client_tls(authority: Authority) -> Tls:
    return authority.tls("client-1", issue={"common_name": "client-1", "organization_name": "Exa,mple"})


@pytest.fixture(scope="session")
def pairs(authority: Authority) -> dict[str, tuple[Transport, Transport]]:
    """Transports for (server, client), by name. TLS takes `server_hostname`, so that they serve unix sockets too."""
    served = authority.issued("localhost")
    one_way = OneWayTls(**served), OneWayTls(ca=authority.pem, server_hostname="localhost")
    made: dict[str, tuple[Transport, Transport]] = {"tcp": (Tcp(), Tcp()), "one way": one_way}
    for version in VERSIONS:
        made[version] = limited(authority, version, True), limited(authority, version, False)
    return made


@pytest.fixture
def trickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every socket from now on is read one byte at a time."""

    class Socket(sockets.PlainSocket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            return super().recv(1)

    monkeypatch.setattr(sockets, "PlainSocket", Socket)
