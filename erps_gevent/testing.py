"""A pytest plugin, which pytest loads by itself where this package is installed. Its fixtures:

erps_daemon:    start a Daemon, which is stopped at the end of the test.
erps_client:    make a Client of it, which is closed at the end of the test.
erps_transport: what both speak, "memory". Override it to run the tests of a module over "tcp" or "tls", or over all.
erps_memory:    the `Memory()` of this test.
erps_tls:       an authority for all tests, whose `server()` and `client("bob")` are `Tls` transports. Needs trustme.
universe:       a universe of its own for each test that asks for it; the value is the link to it.

    def test_it_counts(erps_daemon, erps_client):
        client = erps_client(erps_daemon(Counter, 0))
        assert client.call(("add", 3)) == 3

Neither a port nor a certificate is needed for that, and `erps_daemon(Counter, 0, transport="tls")` is the same over
two-way TLS. docs/testing.md has more, and `examples/testing` whole test-suites.

With `universe`, what one test registers in a sharded Registry no other test sees: not one that ran before, and not one
that runs at the same time in this Python process, in another greenlet or native thread. The fixture adopts in the
greenlet that sets up the test, which is the one that runs it, and leaves at the end. Processes with
`forward_callers=True` follow; a greenlet or thread that the test starts by other means is handed the value:

    gevent.spawn(in_universe, universe)

    def in_universe(link):
        erps_gevent.universe.adopt(link)

That includes the threads of a plugin that runs one test in several of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import product
from typing import Any, TypeAlias

import pytest

from erps_gevent.certs import leaf_of, new_authority
from erps_gevent.client import Client
from erps_gevent.daemon import Daemon
from erps_gevent.errors import ConfigError, Disconnected
from erps_gevent.otp.universe import Link, fresh
from erps_gevent.server import Server
from erps_gevent.transport.memory import Memory
from erps_gevent.transport.tcp import Tcp, Transport
from erps_gevent.transport.tls import Tls
from erps_gevent.wire.packet import parse_version

__all__ = ["Authority", "MakeClient", "Memory", "StartDaemon", "cut"]

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")  # as clients of this machine dial it

StartDaemon: TypeAlias = Callable[..., Daemon]
MakeClient: TypeAlias = Callable[..., Any]


class Authority:
    """A certificate authority that lives as long as this object, and the transports of whom it has issued one to.

    The fixture `erps_tls` is one. A second one issues certificates that nobody of the first believes.

    raises: ConfigError  trustme is not installed.
    """

    def __init__(self) -> None:
        self._ca = new_authority("testing")

    @property
    def ca(self) -> bytes:
        """The authority's own certificate, as PEM."""
        return bytes(self._ca.cert_pem.bytes())

    def server(self, *names: str, **options: Any) -> Tls:
        """Two-way TLS for a daemon.

        names:   as clients dial it; none means "localhost", "127.0.0.1" and "::1".
        options: for `Tls`, such as `verify_peer`.
        raises:  ConfigError  one of the names is none.
        """
        return self._issued(names or LOCAL_NAMES, options)

    def client(self, name: str = "client", **options: Any) -> Tls:
        """Two-way TLS for a client, which the server sees as `self.peer.common_name == name`.

        options, raises: as for `server`.
        """
        return self._issued((name,), options)

    def _issued(self, names: tuple[str, ...], options: dict[str, Any]) -> Tls:
        leaf = leaf_of(self._ca, names)
        cert = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return Tls(**{"ca": self.ca, "cert": cert, "key": leaf.private_key_pem.bytes(), **options})


def cut(client: Client) -> None:
    """Cut the line of a client, without a bye, as a network does.

    The client has noticed when this returns: its pending calls fail with `Disconnected(sent=True)`, it is told by
    handle_disconnect, and it heals; a call made now waits for the new line. Its server process ends with
    Shutdown("disconnected") as soon as it looks at its line, within a second if a handler is parked.

    raises: Disconnected  there is no line to cut.
    switch: parks if the client lives in another thread.
    """
    client._lifeline.run(_cut, client)


def _cut(client: Client) -> None:
    healer = client._lifeline.healer
    if healer is None or healer.line is None:
        raise Disconnected(f"{client!r} has no line to cut; wait_connected() waits for one", reason="disconnected")
    healer.line.lose(Disconnected("the test has cut the line", reason="reset", sent=True))


@pytest.fixture
def universe(request: pytest.FixtureRequest) -> Iterator[Link]:
    """Run the test in a new universe; the value is what others adopt to be in it too."""
    with fresh(request.node.name) as link:
        yield link


@pytest.fixture(scope="session")
def erps_tls() -> Authority:
    """An `Authority`: `erps_tls.server()` and `erps_tls.client("bob")` are transports for the two ends."""
    return Authority()


@pytest.fixture
def erps_memory() -> Memory:
    """The `Memory()` that both ends of this test have if they speak "memory"; no other test is in it."""
    return Memory()


@pytest.fixture
def erps_transport() -> str:
    """What daemons and clients speak if the test does not say. Override it in a module or a conftest.

    The value is "memory", "tcp" or "tls". To run each test over all of them:

        @pytest.fixture(params=["memory", "tcp", "tls"])
        def erps_transport(request):
            return request.param
    """
    return "memory"


@pytest.fixture
def erps_daemon(request: pytest.FixtureRequest, erps_transport: str) -> Iterator[StartDaemon]:
    """Start daemons: `erps_daemon(Counter, 0)` is a started `Daemon` of `Counter`, whose init is given 0.

    The arguments are those of `Daemon`, but for these:

    transport: "memory", "tcp" or "tls", or a transport; what `erps_transport` says if it is not given.
    listener:  ("127.0.0.1", 0) if it is not given.

    They are stopped at the end of the test, without waiting for their clients.
    """
    with ExitStack() as stops:

        def start(
            server_class: type[Server],
            *args: Any,
            transport: str | Transport | None = None,
            listener: Any = ("127.0.0.1", 0),
            **options: Any,
        ) -> Daemon:
            chosen = _transport(request, erps_transport if transport is None else transport, "server")
            daemon = Daemon(listener, server_class, *args, transport=chosen, **options)
            stops.callback(daemon.stop, timeout=0)
            daemon.start()
            return daemon

        yield start


@pytest.fixture
def erps_client(request: pytest.FixtureRequest, erps_transport: str, erps_daemon: StartDaemon) -> Iterator[MakeClient]:
    """Make clients: `erps_client(daemon)`, `erps_client(daemon, CounterClient, *args)`, `erps_client(address)`.

    As always, the first call connects. The arguments after the class are those of `Client`, but for these:

    transport:  "memory", "tcp" or "tls", or a transport. If it is not given, what the daemon speaks: for TLS that is
                `erps_tls.client()`. With an address, what `erps_transport` says.
    identifier, version, codec, signing: what fits the daemon, of those that neither the class nor the call says.
    hub:        "here" if neither says it, so that the client lives in the hub of the test, as the daemon does.

    They are closed at the end of the test, before the daemons are stopped.
    """
    # It asks for erps_daemon only to be torn down before it.
    with ExitStack() as closes:

        def make(
            target: Any,
            client_class: type[Client] = Client,
            *args: Any,
            transport: str | Transport | None = None,
            **options: Any,
        ) -> Any:
            wanted: str | Transport = erps_transport
            fitting: dict[str, Any] = {"hub": "here"}
            if isinstance(target, Daemon):
                wanted = "tls" if target.transport.secure else target.transport
                fitting |= _fitting(target)
                target = target.address
            unsaid = {name: value for name, value in fitting.items() if name not in client_class.class_options}
            chosen = _transport(request, wanted if transport is None else transport, "client")
            client = client_class(target, *args, transport=chosen, **{**unsaid, **options})
            closes.callback(client.close)
            return client

        yield make


def _transport(request: pytest.FixtureRequest, wanted: object, side: str) -> Transport:
    """The transport of one side: "server" or "client"."""
    if isinstance(wanted, Transport):
        return wanted
    if wanted == "memory":
        return request.getfixturevalue("erps_memory")  # type: ignore[no-any-return]
    if wanted == "tcp":
        return Tcp()
    if wanted == "tls":
        return getattr(request.getfixturevalue("erps_tls"), side)()  # type: ignore[no-any-return]
    raise ConfigError(f"transport={wanted!r} is 'memory', 'tcp' or 'tls', or a transport such as Tls(...)")


def _fitting(daemon: Daemon) -> dict[str, Any]:
    """What a client says to a daemon that takes it."""
    versions = daemon.options["versions"]
    found = {name: daemon.options[name] for name in ("identifier", "codec", "signing")}
    if versions is None:
        return found
    # The first that it serves of those that its specifier names, and of the next ones for "!=" and ">".
    for named, step in product(re.findall(r"\d+(?:\.\d+)*", str(versions)), (0, 1)):
        with suppress(ConfigError):
            major, minor, patch = parse_version(named)
            version = f"{major}.{minor}.{patch + step}"
            if versions.contains(version):
                return {**found, "version": version}
    return found
