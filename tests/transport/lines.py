"""What the tests of transport/ share: an authority, listeners, both ends of a line, and parking reads and writes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import gevent
import trustme
from gevent import socket as green
from gevent import ssl as green_ssl

from erps_gevent.transport.address import Address, parse_address
from erps_gevent.transport.certificates import load_own
from erps_gevent.transport.sockets import listen
from erps_gevent.transport.tcp import SEAL_SIZE, Stream, Transport
from erps_gevent.transport.tls import Tls

PATIENCE = 10.0  # seconds: a bound for what takes milliseconds
KINDS = ("ipv4", "ipv6", "unix")
VERSIONS = ("TLSv1.2", "TLSv1.3")


class Authority:
    """Issues certificates as PEM, and makes transports of them."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes()

    def issued(self, *names: str, **options: Any) -> dict[str, bytes]:
        made = self._ca.issue_cert(*names, **options)
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        return {"cert": chain, "key": made.private_key_pem.bytes()}

    def tls(self, *names: str, issue: dict[str, Any] | None = None, **options: Any) -> Tls:
        return Tls(ca=self.pem, **{**self.issued(*names, **(issue or {})), **options})


class Place:
    """A listener, and the address by which clients reach it."""

    def __init__(self, kind: str, directory: Path) -> None:
        where: Any = {"ipv4": ("127.0.0.1", 0), "ipv6": ("::1", 0), "unix": str(directory / "s")}[kind]
        self.listener = listen(where)
        self.address: Address = parse_address(where if kind == "unix" else self.listener.getsockname())

    def accept(self, transport: Transport, timeout: float | None = PATIENCE, **options: Any) -> Stream:
        green.wait_read(self.listener.fileno())
        sock, address = self.listener.accept()
        return transport.accept(sock, address, timeout, **options)

    def accepting(self, transport: Transport, timeout: float | None = PATIENCE, **options: Any) -> gevent.Greenlet:
        def accept() -> Any:
            try:
                return self.accept(transport, timeout, **options)
            except Exception as exc:  # noqa: BLE001, the test judges it
                return exc

        return gevent.spawn(accept)

    def raw(self) -> Any:
        """A plain client socket that is connected to it."""
        family = self.listener.family
        sock = green.socket(family, green.SOCK_STREAM)
        sock.connect(self.listener.getsockname())
        sock.settimeout(PATIENCE)
        return sock


class Ends:
    """Whatever a test opened, closed at its end."""

    def __init__(self) -> None:
        self.opened: list[Any] = []

    def keep(self, stream: Any) -> Any:
        self.opened.append(stream)
        return stream

    def line(
        self, place: Place, server: Transport, client: Transport, at: Address | None = None, **options: Any
    ) -> tuple[Stream, Stream]:
        """(client's end, server's end) of a new line."""
        accepting = place.accepting(server, **options)
        near = self.keep(client.connect(at or place.address, PATIENCE, **options))
        far = accepting.get(timeout=PATIENCE)
        if isinstance(far, Exception):
            raise far
        return near, self.keep(far)


def limited(authority: Authority, version: str, server_side: bool, presenting: bool = True) -> Tls:
    """Two-way TLS from a ready context that speaks at most `version`."""
    context = green_ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[version]
    context.load_verify_locations(cadata=authority.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    if presenting:
        issued = authority.issued("localhost", "127.0.0.1")
        load_own(context, issued["cert"], issued["key"], None)
    return Tls(context=context, server_hostname="localhost")


def receive(stream: Stream, size: int | None = None) -> bytes:
    """`size` bytes of plaintext, or all until the end; parks."""
    got = bytearray()
    while size is None or len(got) < size:
        chunk = stream.receive()
        if chunk is None:
            assert stream.wait_readable(PATIENCE), f"nothing came after {len(got)} bytes"
        elif not chunk:
            break
        else:
            got += chunk
    return bytes(got)


def send(stream: Stream, data: bytes, piece: int = SEAL_SIZE) -> None:
    """Seal and send all of `data`; parks."""
    for start in range(0, len(data), piece):
        send_sealed(stream, stream.seal(data[start : start + piece]))


def send_sealed(stream: Stream, sealed: bytes | memoryview) -> None:
    rest = memoryview(sealed)
    while rest:
        taken = stream.send(rest)
        if not taken:
            assert stream.wait_writable(PATIENCE)
        rest = rest[taken:]
