"""Where the other end is (`Address`), and who answered there (`Peer`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

from erps_gevent.errors import ConfigError

UNIX_PATH_SIZE = 103  # bytes: the smallest sun_path among the systems in use (macOS), less its NUL
FORMS = "write (host, port), the path of a unix socket such as '/run/x.sock', or a URL such as 'erps://host:4747'"

Where = tuple[str, int] | str

# What RFC 4514 has short names for; any other attribute keeps the name that OpenSSL gives it.
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


@dataclass(frozen=True)
class Address:
    """A place to connect to or to listen at: a host and a port, or the path of a unix socket.

    scheme: that of the URL it was written as ("erps", "erps+tcp", "erps+unix"), else None.
    """

    host: str = ""
    port: int = 0
    path: str | None = None
    scheme: str | None = None

    def __str__(self) -> str:
        return self.path if self.path is not None else _shown(self.host, self.port)


def parse_address(address: object, transport: object = None, *, listening: bool = False) -> Address:
    """Make an `Address` of what a user wrote.

    address:   `(host, port)`, the path of a unix socket (a str with a "/", or a PathLike), a URL (`erps://host:4747`
               for TLS, `erps+tcp://host:4747`, `erps+unix:///run/x.sock`), or an `Address`.
    transport: the transport given with it, or None; the URL's scheme must agree with it.
    listening: True allows the empty host (every IPv4 interface) and port 0 (any free one).
    raises:    ConfigError  names what is wrong and what to write instead.
    """
    parsed = _parsed(address)
    if parsed.path is not None:
        _check_path(parsed.path)
    else:
        _check_host(parsed.host, listening)
        _check_port(parsed.port, listening)
    _check_scheme(parsed, transport)
    return parsed


def _parsed(address: object) -> Address:
    if isinstance(address, Address):
        return address
    if isinstance(address, tuple | list):
        return _from_pair(tuple(address))
    if isinstance(address, os.PathLike):
        address = os.fspath(address)
    if isinstance(address, bytes):
        raise ConfigError(f"the address {address!r} is bytes, not text: {FORMS}")
    if not isinstance(address, str):
        raise ConfigError(f"the address {address!r} is a {type(address).__name__}: {FORMS}")
    if "://" in address:
        return _from_url(address)
    if "/" not in address:
        raise ConfigError(f"the address {address!r} has neither a scheme nor a slash: {FORMS}")
    return Address(path=address)


def _from_pair(pair: tuple[Any, ...]) -> Address:
    # IPv6 sockets name themselves (host, port, flow, scope).
    if len(pair) not in (2, 4):
        raise ConfigError(f"the address {pair!r} has {len(pair)} parts, not a host and a port: {FORMS}")
    host, port = pair[:2]
    if isinstance(host, bytes):
        raise ConfigError(f"the host {host!r} is bytes, not text: write {host.decode('ascii', 'replace')!r}")
    if not isinstance(host, str):
        raise ConfigError(f"the host {host!r} is a {type(host).__name__}, not a str: {FORMS}")
    if not isinstance(port, int) or isinstance(port, bool):
        raise ConfigError(f"the port {port!r} is a {type(port).__name__}, not an int: write (host, 4747)")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if len(pair) == 4 and pair[3] and "%" not in host:
        host = f"{host}%{pair[3]}"
    return Address(host, port)


def _from_url(url: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"the address {url!r} is not a URL that can be read ({exc}): {FORMS}") from exc
    if parts.scheme == "erps+unix":
        if parts.netloc or not parts.path or parts.query or parts.fragment:
            raise ConfigError(f"the address {url!r} must have three slashes and a path: erps+unix:///run/x.sock")
        return Address(path=unquote(parts.path), scheme=parts.scheme)
    if parts.scheme not in ("erps", "erps+tcp"):
        raise ConfigError(
            f"the address {url!r} has the scheme {parts.scheme!r}: use erps:// (TLS), erps+tcp:// or erps+unix://"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"the address {url!r} has more than a host and a port: write {parts.scheme}://host:4747")
    if port is None:
        raise ConfigError(f"the address {url!r} has no port: write {parts.scheme}://{host or 'host'}:4747")
    return Address(host or "", port, scheme=parts.scheme)


def _check_host(host: str, listening: bool) -> None:
    if not host and not listening:
        raise ConfigError("the host is empty: name the machine to connect to, such as 'localhost'")
    try:
        host.encode("idna")
    except UnicodeError as exc:
        raise ConfigError(f"the host {host!r} is not a name that DNS can hold ({exc}): {FORMS}") from exc
    if any(character <= " " for character in host):
        raise ConfigError(f"the host {host!r} has a blank or a control character in it: {FORMS}")


def _check_port(port: int, listening: bool) -> None:
    lowest = 0 if listening else 1
    if not lowest <= port <= 65535:
        raise ConfigError(f"the port {port} is outside {lowest} to 65535")


def _check_path(path: str) -> None:
    if "\0" in path:
        raise ConfigError(f"the path {path!r} has a NUL in it: {FORMS}")
    try:
        size = len(os.fsencode(path))
    except UnicodeError as exc:
        raise ConfigError(f"the path {path!r} cannot be a file name here ({exc}): {FORMS}") from exc
    if size > UNIX_PATH_SIZE:
        raise ConfigError(f"the path {path!r} has {size} bytes: a unix socket takes {UNIX_PATH_SIZE}")


def _check_scheme(address: Address, transport: object) -> None:
    secure = getattr(transport, "secure", None)
    if secure is False and address.scheme == "erps":
        raise ConfigError(
            f"erps://{address} means TLS, but transport={transport!r} has none: "
            f"write erps+tcp://{address}, or transport=Tls(ca=..., cert=..., key=...)"
        )
    if secure is True and address.scheme == "erps+tcp":
        raise ConfigError(
            f"erps+tcp://{address} means no TLS, but transport={transport!r} has it: "
            f"write erps://{address}, or transport=Tcp()"
        )


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a line, as the transport knows it.

    address:         `(host, port)`, or the path of the unix socket; on the server's side of one "unix:pid=71,uid=0".
    certificate:     as `ssl.SSLSocket.getpeercert()` gives it, once verified; None if it presented none.
    certificate_der: the same certificate as it came.
    subject:         the certificate's subject by RFC 4514, such as "CN=client-1,O=Example".
    sans:            the values of its subjectAltName: DNS names, IP addresses, URIs, mail addresses.
    tls_version:     such as "TLSv1.3", or None.
    key_id:          the id, in this end's Keyring, of the key that it has proved to have; None on a line that is not
                     signed. With `OneWayTls` or `Tcp` this is who the client is.
    """

    address: Where
    certificate: dict[str, Any] | None = None
    certificate_der: bytes | None = None
    subject: str | None = None
    sans: tuple[str, ...] = ()
    tls_version: str | None = None
    key_id: str | bytes | None = None

    @property
    def common_name(self) -> str | None:
        """The CN of the certificate's subject, such as "client-1"; None if it has none."""
        subject = self.certificate.get("subject", ()) if self.certificate else ()
        return next((value for rdn in subject for name, value in rdn if name == "commonName"), None)

    def __str__(self) -> str:
        where = self.address if isinstance(self.address, str) else _shown(*self.address)
        names = [self.subject or ", ".join(self.sans)] if self.certificate else []
        if self.key_id is not None:
            names.append(f"key {self.key_id!r}")
        return f"{', '.join(names)} at {where}" if names else where


def peer_address(sockname: object) -> Where:
    """What the kernel calls a socket's other end, as `Peer.address` has it: IPv4 inside IPv6 is shown as IPv4."""
    if not isinstance(sockname, tuple):
        return os.fsdecode(sockname) if isinstance(sockname, bytes) else str(sockname)
    host, port = sockname[:2]
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:") :]
    return host, port


def subject_of(certificate: Mapping[str, Any]) -> str:
    """The subject as RFC 4514 writes it: the last part first, special characters escaped."""
    parts = []
    for rdn in reversed(certificate.get("subject", ())):
        parts.append("+".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in rdn))
    return ",".join(parts)


def names_in(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of subjectAltName, without their kinds; IP addresses as they are commonly written."""
    return tuple(_named(kind, value) for kind, value in certificate.get("subjectAltName", ()))


def _named(kind: str, value: Any) -> str:
    # OpenSSL writes 0:0:0:0:0:0:0:1; what is no address after all stays as it is.
    with suppress(ValueError):
        return str(ip_address(value)) if kind == "IP Address" else str(value)
    return str(value)


def _escaped(value: str) -> str:
    # A subject is compared and logged: a comma or a newline inside one value must not look like another attribute.
    text = "".join(
        f"\\{character}" if character in ',+"\\<>;=' else character if character.isprintable() else _hex(character)
        for character in value
    )
    if text.startswith(("#", " ")):
        text = "\\" + text
    return text[:-1] + "\\ " if text.endswith(" ") and len(text) > 2 else text


def _hex(character: str) -> str:
    return "".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
