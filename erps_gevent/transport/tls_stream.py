"""`TlsStream`, a line under TLS, from its handshake on.

TLS is done in memory: OpenSSL reads and writes two buffers, and the socket carries ciphertext as it would any bytes. So
nothing is ever half-offered to OpenSSL, a read never waits for a write, and one socket can be read and written at once.
"""

from __future__ import annotations

import ssl
import weakref
from contextlib import suppress
from typing import Any

from erps_gevent.errors import Disconnected, ProtocolError
from erps_gevent.transport.address import Peer, names_in, subject_of
from erps_gevent.transport.reasons import handshake_failed, tls_lost
from erps_gevent.transport.sockets import Deadline, PlainSocket, plain, wait
from erps_gevent.transport.tcp import READ_SIZE, SEAL_SIZE, Stream

RECORD_SIZE = 16 * 1024  # bytes: the most plaintext in one TLS record
LINGER = 1.0  # seconds in which a refused client may read why
LINGER_SIZE = 1024 * 1024  # bytes of it that are thrown away meanwhile
HANDSHAKE, ALERT = 0x16, 0x15  # the record types with which a TLS dialogue can begin
CLEAR = b"erps"  # the first bytes of this protocol without TLS


class PlaintextPeer(ProtocolError):
    """A client spoke erps in clear to a TLS port.

    stream: a plain Stream on its socket, for the answer; its owner closes it. Its first bytes are read already.
    """

    stream: Stream | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class TlsStream(Stream):
    """A line under TLS.

    Answers of OpenSSL's own (to a key update) wait in `_outgoing` for the next seal(), as TLS 1.3 allows (RFC 8446,
    4.6.3).

    name:      what the server's certificate is checked for; None does not check.
    presented: whether this end has a certificate to present, for messages.
    """

    __slots__ = ("_fault", "_finished", "_incoming", "_name", "_outgoing", "_presented", "_server_side", "_tls")
    in_clear = False

    def __init__(
        self,
        sock: PlainSocket,
        peer: Peer,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        name: str | None = None,
        presented: bool = True,
    ) -> None:
        super().__init__(sock, peer)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, name)
        # Where gevent's SSLContext has an sni_callback, it looks the socket up under this name.
        self._tls._sslsock = weakref.ref(self._tls)  # type: ignore[attr-defined]
        self._server_side = server_side
        self._name = name
        self._presented = presented
        self._finished = False
        self._fault: ssl.SSLError | None = None

    def receive(self, room: memoryview | None = None) -> bytes | None:
        """As `Stream.receive()`; a refusal of our certificate by a TLS 1.3 server shows here first."""
        if self._incoming.pending:
            plaintext = self._opened()
            if plaintext is not None:
                return plaintext
        while not self._finished:
            chunk = super().receive()
            if chunk is None:
                return None
            if not chunk:
                self._finished = True
                break
            self._incoming.write(chunk)
            plaintext = self._opened()
            if plaintext is not None or self.drained:
                return plaintext
        if self._fault is not None:
            raise self._lost(self._fault) from self._fault
        return b""

    def _opened(self) -> bytes | None:
        """All plaintext there is; None if there is none yet."""
        parts = []
        try:
            while True:
                part = self._tls.read(RECORD_SIZE)
                if not part:
                    self._finished = True
                    break
                parts.append(part)
                # A read gives a whole record, so that nothing is left inside OpenSSL but the start of another.
                if not self._incoming.pending:
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._finished = True
        except ssl.SSLError as exc:
            self._finished = True
            self._fault = exc
        if self._finished:
            # What came first is given out first; the next receive() says how it ended.
            self.drained = False
            if not parts:
                return None if self._fault is not None else b""
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seal(self, data: bytes | memoryview) -> bytes:
        if len(data) > SEAL_SIZE:
            whole = memoryview(data)
            return b"".join(self.seal(whole[at : at + SEAL_SIZE]) for at in range(0, len(data), SEAL_SIZE))
        try:
            if data:
                self._tls.write(data)
        except ssl.SSLError as exc:
            raise self._lost(exc) from exc
        return self._outgoing.read()

    def farewell(self) -> bytes:
        # It wants the other end's farewell too; or the line has failed, and what there is to send is an alert.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()

    def _lost(self, exc: ssl.SSLError) -> Disconnected:
        return tls_lost(exc, "client" if self._server_side else "server", self._presented)

    def handshake(self, deadline: Deadline, where: object) -> None:
        """Agree on keys and see who is there. The caller closes the stream if this raises.

        where:  the other end's address, for messages.
        raises: Disconnected(sent=False)
                PlaintextPeer             a client that speaks erps in clear; the socket is now its `stream`'s.
        switch: parks.
        """
        other = "client" if self._server_side else "server"
        try:
            self._first_words(deadline, where)
            while not self._advanced():
                self._flush(deadline, where)
                self._incoming.write(self._heard(deadline, where))
            self._flush(deadline, where)
        except ssl.SSLError as exc:
            seen = _presented_by(self._tls)
            self._say_why()
            raise handshake_failed(exc, other, where, presented=self._presented, name=self._name, seen=seen) from exc
        self._recognise()

    def _advanced(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _first_words(self, deadline: Deadline, where: object) -> None:
        """Read what the other end says first and see that it is TLS."""
        if not self._server_side:
            self._advanced()
            self._flush(deadline, where)
        words = self._heard(deadline, where)
        while len(words) < len(CLEAR) and CLEAR.startswith(words):
            words += self._heard(deadline, where)
        if words[0] in (HANDSHAKE, ALERT):
            self._incoming.write(words)
            return
        if not words.startswith(CLEAR):
            raise Disconnected(f"{where} does not speak TLS: it began with {words[:16]!r}", reason="not_tls")
        if not self._server_side:
            remedy = "use transport=Tcp() here, or give the server Tls(...)"
            raise Disconnected(f"{where} does not speak TLS but erps in clear: {remedy}", reason="not_tls")
        error = PlaintextPeer(f"the client {where} spoke erps in clear to a TLS port: it must use Tls(...)")
        error.stream = Stream(plain(self._sock), self.peer)
        raise error

    def _heard(self, deadline: Deadline, where: object) -> bytes:
        """Ciphertext of the handshake; parks until there is some."""
        while True:
            try:
                chunk = self._sock.recv(READ_SIZE)
            except BlockingIOError:
                if not wait(self._sock, False, deadline.left()):
                    raise self._late(deadline, where) from None
                continue
            except OSError as exc:
                raise self._cut(where, "reset the connection", "reset") from exc
            if not chunk:
                raise self._cut(where, "closed the connection", "closed")
            if deadline.passed:
                raise self._late(deadline, where)
            return chunk

    def _flush(self, deadline: Deadline, where: object) -> None:
        """Send what the handshake has to say; parks until the kernel has all of it."""
        data = self._outgoing.read()
        while data:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                if not wait(self._sock, True, deadline.left()):
                    raise self._late(deadline, where) from None
            except OSError as exc:
                raise self._cut(where, "reset the connection", "reset") from exc

    def _cut(self, where: object, did: str, reason: str) -> Disconnected:
        hint = "it went away" if self._server_side else "does that port speak TLS, and take this client?"
        return Disconnected(f"{where} {did} during the TLS handshake; {hint}", reason=reason)

    def _late(self, deadline: Deadline, where: object) -> Disconnected:
        hint = "" if self._server_side else "; does that port speak TLS?"
        text = f"timed out in the TLS handshake with {where}: not done in {deadline.seconds:.3g} s{hint}"
        return Disconnected(text, reason="handshake_timeout")

    def _say_why(self) -> None:
        """Let the other end read our alert before the socket is closed.

        A server that closes while a client's bytes are still unread resets the connection, and the alert is lost.
        switch: parks for at most LINGER seconds, a server only.
        """
        deadline = Deadline(LINGER)
        try:
            self._sock.send(self._outgoing.read())
            self.shutdown_write()
            thrown = 0
            while self._server_side and thrown < LINGER_SIZE and wait(self._sock, False, deadline.left()):
                size = len(self._sock.recv(READ_SIZE))
                if not size or deadline.passed:
                    return
                thrown += size
        except OSError:
            # It does not listen any more; the error that brought us here is the one to report.
            return

    def _recognise(self) -> None:
        certificate = self._tls.getpeercert() or None
        self.peer = Peer(
            address=self.peer.address,
            certificate=certificate,
            certificate_der=self._tls.getpeercert(binary_form=True) if certificate else None,
            subject=subject_of(certificate) if certificate else None,
            sans=names_in(certificate) if certificate else (),
            tls_version=self._tls.version(),
        )

    def refuse(self) -> None:
        """End a line that is not wanted after all, with a farewell. switch: as `handshake()` when it fails."""
        self._outgoing.write(self.farewell())
        self._say_why()


def _presented_by(tls: Any) -> dict[str, Any] | None:
    """The certificate that a failed handshake stumbled over, if Python shows it."""
    # The public getpeercert() refuses before the handshake is done; this inner one is for the message only.
    try:
        found: dict[str, Any] = tls._sslobj.get_unverified_chain()[0].get_info()
    except (AttributeError, TypeError, IndexError, ValueError):
        return None
    return found
