"""`Tls()`, by which both ends present a certificate, and `OneWayTls()`, by which only the server does."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, TypeAlias

from gevent.monkey import get_original

from erps_gevent.errors import ConfigError, Disconnected
from erps_gevent.transport.address import Address, Peer, Where
from erps_gevent.transport.certificates import Credentials, Password, Source, shown
from erps_gevent.transport.sockets import DEAD_AFTER, EXPIRED, Deadline, PlainSocket, dial, plain, within
from erps_gevent.transport.tcp import Transport, named
from erps_gevent.transport.tls_stream import PlaintextPeer, TlsStream

__all__ = ["OneWayTls", "PlaintextPeer", "Tls", "TlsStream"]

Verify: TypeAlias = Callable[[dict[str, Any], Where], Any]


class _AnyTls(Transport):
    """What `Tls` and `OneWayTls` have in common."""

    secure = True
    two_way = True

    def __init__(
        self,
        *,
        ca: Source | None = None,
        cert: Source | None = None,
        key: Source | None = None,
        password: Password | None = None,
        server_hostname: str | None = None,
        check_hostname: bool = True,
        verify_peer: Verify | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        if verify_peer is not None and not callable(verify_peer):
            raise ConfigError(f"verify_peer={verify_peer!r} is not callable: pass a function (cert, address) -> bool")
        if server_hostname is not None:
            _check_name(server_hostname)
        self.server_hostname = server_hostname
        self.verify_peer = verify_peer
        self._context = context
        if context is not None:
            if any(option is not None for option in (ca, cert, key, password)) or not check_hostname:
                raise ConfigError(
                    "context= was given together with ca=, cert=, key=, password= or check_hostname=: "
                    "a ready context has these already, so pass one or the other"
                )
            self._check_context(context)
            self.check_hostname = context.check_hostname
        else:
            self._credentials = self._accredited(ca, cert, key, password, check_hostname)
            self.check_hostname = check_hostname

    def _accredited(
        self, ca: Source | None, cert: Source | None, key: Source | None, password: Password | None, check: bool
    ) -> Credentials:
        return Credentials(ca, cert, key, password, verify_clients=self.two_way, check_hostname=check)

    def _check_context(self, context: object) -> None:
        if not isinstance(context, get_original("ssl", "SSLContext")):
            raise ConfigError(f"context={context!r} is not an ssl.SSLContext")
        if self.two_way and context.verify_mode != ssl.CERT_REQUIRED:
            raise ConfigError(
                "context= does not require a certificate of the other end, but Tls is two-way: "
                "set context.verify_mode = ssl.CERT_REQUIRED, or use OneWayTls(context=...)"
            )

    def check_target(self, address: Address) -> None:
        if self.check_hostname and self.server_hostname is None and address.path is not None:
            raise ConfigError(
                f"a certificate cannot be compared with the path {address.path!r}: "
                "pass server_hostname= with the name that is in the server's certificate"
            )

    def check_listener(self, listener: object = None) -> None:
        if self._context is None and self._credentials.cert is None:
            raise ConfigError(f"{self!r} has no certificate to present, and a server needs one: pass cert= and key=")

    def connect(self, address: Address, timeout: float | None, *, dead_after: float | None = DEAD_AFTER) -> TlsStream:
        self.check_target(address)
        context = self._context_for(server_side=False)
        deadline = Deadline(timeout)
        name = self.server_hostname or _host_name(address)
        sock = dial(address, deadline)
        return self._secured(sock, address, context, name, deadline, dead_after)

    def accept(
        self, sock: Any, address: Any, timeout: float | None, *, dead_after: float | None = DEAD_AFTER
    ) -> TlsStream:
        sock = plain(sock)
        try:
            self.check_listener()
            context = self._context_for(server_side=True)
        except BaseException:
            sock.close()
            raise
        return self._secured(sock, address, context, None, Deadline(timeout), dead_after)

    def _context_for(self, *, server_side: bool) -> ssl.SSLContext:
        if self._context is None:
            return self._credentials.context(server_side=server_side)
        wrong = ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER
        if self._context.protocol == wrong:
            raise ConfigError(
                f"context= was made with {wrong.name}, but this end is the {'server' if server_side else 'client'}"
            )
        return self._context

    def _secured(
        self,
        sock: PlainSocket,
        address: Any,
        context: ssl.SSLContext,
        name: str | None,
        deadline: Deadline,
        dead_after: float | None,
    ) -> TlsStream:
        server_side = not isinstance(address, Address)
        peer = Peer(named(sock, dead_after, address))
        where = peer if server_side else address
        presented = self._context is not None or self._credentials.cert is not None
        try:
            stream = TlsStream(sock, peer, context, server_side=server_side, name=name, presented=presented)
            stream.handshake(deadline, where)
            self._verify(stream, deadline)
        except BaseException:
            # A PlaintextPeer has taken the descriptor along.
            sock.close()
            raise
        return stream

    def _verify(self, stream: TlsStream, deadline: Deadline) -> None:
        """Ask the user's `verify_peer`."""
        if self.verify_peer is None:
            return
        cause: Exception | None = None
        try:
            answer = within(deadline.left(), self.verify_peer, stream.peer.certificate or {}, stream.peer.address)
            if answer is not EXPIRED and answer:
                return
            said = "did not answer in time" if answer is EXPIRED else "said no"
        except Exception as exc:  # noqa: BLE001, whatever the user's code raises is a refusal
            cause, said = exc, f"raised {exc!r}"
        stream.refuse()
        raise Disconnected(f"verify_peer refused {stream.peer}: it {said}", reason="refused_by_verify_peer") from cause

    def __repr__(self) -> str:
        if self._context is not None:
            return f"{type(self).__name__}(context=...)"
        held = self._credentials
        given = (("ca", held.ca), ("cert", held.cert), ("key", held.key))
        written = ", ".join(f"{option}={shown(source)}" for option, source in given if source is not None)
        return f"{type(self).__name__}({written})"


class Tls(_AnyTls):
    """TLS by which both ends present a certificate and believe the other's.

    ca:              the authorities that may have issued the other end's certificate: a PEM file's path, or PEM bytes.
    cert, key:       what this end presents; without `key`, the key is in `cert`.
    password:        of an encrypted key: str, bytes, or a callable that returns one.
    server_hostname: the name to look for in the server's certificate, where it is not the host that is dialled.
    check_hostname:  False takes any certificate that `ca` issued for the server's.
    verify_peer:     called with the other end's certificate (as `ssl.SSLSocket.getpeercert()` has it) and its address;
                     it returns something falsy, or raises, to refuse it. On either side.
    context:         a ready SSLContext instead of ca, cert, key, password and check_hostname.
    raises:          ConfigError  something of this is missing, unreadable or does not fit; the text says what to do.

    Files are read again for new handshakes when they have changed.
    """

    def _accredited(
        self, ca: Source | None, cert: Source | None, key: Source | None, password: Password | None, check: bool
    ) -> Credentials:
        if cert is None:
            raise ConfigError("Tls is two-way, so this end needs a certificate: pass cert= and key=, or use OneWayTls")
        if ca is None:
            raise ConfigError("Tls has no authority to believe: pass ca= with that of the other end's certificate")
        return super()._accredited(ca, cert, key, password, check)


class OneWayTls(_AnyTls):
    """TLS by which only the server presents a certificate; anyone who can reach it may connect.

    Unless both ends also have `signing=Keyring(...)`: then only who has a key may, and `server.peer.key_id` is its id.

    Options as for `Tls`: a client needs `ca` (without it, the system's authorities), a server `cert` and `key`.
    """

    two_way = False


def _host_name(address: Address) -> str | None:
    """The name to look for in the certificate: without the scope of an IPv6 address and without DNS's last dot."""
    return address.host.partition("%")[0].rstrip(".") or None


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or name.startswith("."):
        raise ConfigError(f"server_hostname={name!r} is not a host name: pass one that is in the server's certificate")
    try:
        name.encode("idna")
    except UnicodeError as exc:
        raise ConfigError(f"server_hostname={name!r} is not a host name ({exc})") from exc
