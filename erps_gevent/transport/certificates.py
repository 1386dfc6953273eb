"""Certificates, keys and authorities, from files or PEM, into SSLContexts.

What can be checked is checked when they are named, so that a typing error shows at start and not in the night. Files
are looked at before each handshake, so that a renewed certificate is picked up without a restart.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from gevent.ssl import SSLContext

from erps_gevent.errors import ConfigError

Source: TypeAlias = str | os.PathLike[str] | bytes
Password: TypeAlias = str | bytes | Callable[[], str | bytes]
Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]

CERTIFICATE = b"-----BEGIN CERTIFICATE"
TRUSTED = b"-----BEGIN TRUSTED CERTIFICATE"
PRIVATE_KEY = b"PRIVATE KEY-----"

log = logging.getLogger(__name__)


class Credentials:
    """What one end presents (`cert`, `key`) and whom it believes (`ca`).

    ca, cert, key:  the path of a PEM file, or PEM itself as bytes, or None. Without `key`, the key is in `cert`.
    password:       of an encrypted key: str, bytes, or a callable that returns one. Nobody is ever asked on a terminal.
    verify_clients: whether a server requires a certificate.
    check_hostname: whether a client compares the server's certificate with the name it dialled.
    raises:         ConfigError  a file cannot be read or is not what it should be, or key and certificate are no pair.
    """

    def __init__(
        self,
        ca: Source | None,
        cert: Source | None,
        key: Source | None,
        password: Password | None,
        *,
        verify_clients: bool,
        check_hostname: bool,
    ) -> None:
        if key is not None and cert is None:
            raise ConfigError("key= was given without cert=: pass the certificate that belongs to it")
        if password is not None and cert is None:
            raise ConfigError("password= was given without cert= and key=: it opens an encrypted key")
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify_clients = verify_clients
        self.check_hostname = check_hostname
        self._password = password
        self._contexts: dict[bool, tuple[Stamp, SSLContext]] = {}
        self._failed: Stamp | None = None
        self._load(SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def context(self, *, server_side: bool) -> SSLContext:
        """The context for a handshake that begins now.

        When the files have changed since the last one they are loaded anew; if they cannot be, the old ones stay in use
        and the log says so, once per change.
        """
        stamp = self._stamp()
        held = self._contexts.get(server_side)
        if held is not None and stamp in (held[0], self._failed):
            return held[1]
        try:
            made = self._made(server_side)
        except ConfigError as exc:
            if held is None:
                raise
            log.warning("renewed certificates are not usable, keeping those in use: %s", exc)
            self._failed = stamp
            return held[1]
        self._contexts[server_side] = stamp, made
        return made

    def _stamp(self) -> Stamp:
        return tuple(_mark(source) for source in (self.ca, self.cert, self.key))

    def _made(self, server_side: bool) -> SSLContext:
        context = SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Compression leaks, renegotiation is a way to keep a server busy. A ticket would let a client come back on the
        # strength of a certificate that was checked before the authorities or verify_peer changed.
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        if server_side:
            context.num_tickets = 0
            context.verify_mode = ssl.CERT_REQUIRED if self.verify_clients else ssl.CERT_NONE
        else:
            context.check_hostname = self.check_hostname
        self._load(context)
        if self.ca is None and not server_side:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context

    def _load(self, context: SSLContext) -> None:
        if self.ca is not None:
            _load_authorities(context, self.ca)
        if self.cert is not None:
            load_own(context, self.cert, self.key, self._password)


def _mark(source: Source | None) -> tuple[int, int, int] | None:
    if source is None or isinstance(source, bytes):
        return None
    try:
        found = os.stat(source)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def shown(source: Source | None) -> str:
    """A source as it may be printed: a path, but never what PEM holds."""
    return "<PEM>" if isinstance(source, bytes) else repr(os.fspath(source)) if source is not None else "None"


def _content(option: str, source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(f"{option}= is a {type(source).__name__}: pass the path of a PEM file, or PEM as bytes")
    path = os.fspath(source)
    if "-----BEGIN" in path:
        raise ConfigError(f"{option}= is PEM as a str, which is taken for a path: pass it as bytes")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise ConfigError(f"{option}={path!r} cannot be read: {exc.strerror}; give the path of a PEM file") from exc
    except ValueError as exc:
        raise ConfigError(f"{option}={path!r} is no path: {exc}") from exc


def _load_authorities(context: SSLContext, ca: Source) -> None:
    content = _content("ca", ca)
    if CERTIFICATE not in content and TRUSTED not in content:
        raise ConfigError(f"ca={shown(ca)} holds no PEM certificate: give the authority of the other end's")
    try:
        with _as_file(ca) as path:
            context.load_verify_locations(cafile=path)
    except OSError as exc:
        raise ConfigError(f"ca={shown(ca)} holds a damaged certificate: {exc}") from exc


def load_own(context: ssl.SSLContext, cert: Source, key: Source | None, password: Password | None) -> None:
    """Have `context` present `cert`. raises: ConfigError"""
    asked = False

    def answer() -> str | bytes:
        nonlocal asked
        asked = True
        if password is None:
            # Without this OpenSSL would ask on the terminal and wait for ever.
            raise ConfigError(f"{where} is encrypted: pass password= with it")
        return _asked(password)

    where = f"cert={shown(cert)}" if key is None else f"key={shown(key)}"
    if CERTIFICATE not in _content("cert", cert):
        raise ConfigError(f"cert={shown(cert)} holds no PEM certificate")
    if PRIVATE_KEY not in (_content("cert", cert) if key is None else _content("key", key)):
        raise ConfigError(f"{where} holds no PEM private key: pass key= with the key that belongs to the certificate")
    try:
        with _as_file(cert) as cert_path, _as_file(cert if key is None else key) as key_path:
            context.load_cert_chain(cert_path, key_path, answer)
    except OSError as exc:
        if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH":
            text = f"{where} does not belong to cert={shown(cert)}: pass the pair that was issued together"
        elif asked:
            text = f"{where} cannot be decrypted with the password= given"
        else:
            text = f"cert={shown(cert)} or its key ({where}) is damaged, or too weak for OpenSSL: {exc}"
        raise ConfigError(text) from exc


def _asked(password: Password) -> str | bytes:
    try:
        value = password() if callable(password) else password
    except Exception as exc:
        raise ConfigError(f"the callable given as password= failed: {exc!r}") from exc
    if not isinstance(value, str | bytes):
        raise ConfigError(f"password= gave a {type(value).__name__}: it must be, or return, str or bytes")
    return value


@contextmanager
def _as_file(source: Source) -> Iterator[str]:
    # OpenSSL reads chains and keys from files only. The file is the user's alone (0600) and is gone again at once.
    if not isinstance(source, bytes):
        yield os.fspath(source)
        return
    import tempfile  # which loads every format of archives, for the few who keep their keys as bytes

    descriptor, path = tempfile.mkstemp(prefix="erps-", suffix=".pem")
    try:
        with open(descriptor, "wb") as file:
            file.write(source)
        yield path
    finally:
        os.unlink(path)
