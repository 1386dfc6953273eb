"""Certificates for development and tests: an authority, servers and clients, as files for `erps.Tls(...)`.

The authority's key is never written: once the files are there nobody can issue another certificate under it, and
every run makes an authority of its own. For production, use your organisation's authority.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erps_gevent.errors import ConfigError

CA = "ca"
NO_TRUSTME = "certificates are made by trustme, which is not installed: pip install 'erps_gevent[{}]'"


@dataclass(frozen=True)
class Identity:
    """One certificate to make: the names in it, and the files it goes to."""

    names: tuple[str, ...]
    cert: Path
    key: Path


@dataclass(frozen=True)
class Issued:
    """What `make` wrote."""

    ca: Path
    servers: tuple[Identity, ...]
    clients: tuple[Identity, ...]


def make(directory: str | Path, servers: Sequence[str], clients: Sequence[str], *, force: bool = False) -> Issued:
    """Write `ca.pem`, and a `NAME.pem` and `NAME.key` for every server and client, under `directory`.

    servers: names as clients dial them: host names, IP addresses, `*.example`; several for one certificate with
             commas between ("localhost,127.0.0.1"). The first names the files.
    clients: the same; what the server sees as the peer's name.
    force:   replace files that exist.
    raises:  ConfigError  a name is no name, two have the same files, a file exists, `directory` cannot be written,
             or trustme is not installed. Nothing was written.
    """
    authority = new_authority("demo")
    place = Path(directory)
    issued = Issued(
        place / f"{CA}.pem",
        tuple(_identity(place, words) for words in servers),
        tuple(_identity(place, words) for words in clients),
    )
    people = issued.servers + issued.clients
    _check_files(issued.ca, people)
    _check_place(place, [issued.ca, *(path for one in people for path in (one.cert, one.key))], force=force)
    leaves = [(one, leaf_of(authority, one.names)) for one in people]

    place.mkdir(parents=True, exist_ok=True)
    _write(issued.ca, authority.cert_pem.bytes(), mode=0o644)
    for one, leaf in leaves:
        _write(one.cert, b"".join(blob.bytes() for blob in leaf.cert_chain_pems), mode=0o644)
        _write(one.key, leaf.private_key_pem.bytes(), mode=0o600)
    return issued


def new_authority(extra: str) -> Any:
    """A `trustme.CA`.

    extra:  the extra of this package that brings trustme to who asks, for the message.
    raises: ConfigError  trustme is not installed.
    """
    try:
        import trustme
    except ImportError as exc:
        raise ConfigError(NO_TRUSTME.format(extra)) from exc
    return trustme.CA()


def _identity(place: Path, words: str) -> Identity:
    names = tuple(name.strip() for name in words.split(","))
    if not all(names):
        raise ConfigError(f"{words!r} has an empty name; write NAME, or NAME,NAME,... for several in one certificate")
    stem = re.sub(r"[^\w.@-]", "_", names[0]).lstrip(".-") or "_"
    return Identity(names, place / f"{stem}.pem", place / f"{stem}.key")


def _check_files(ca: Path, people: Sequence[Identity]) -> None:
    taken = {ca: f"the authority ({CA})"}
    for one in people:
        if one.cert in taken:
            raise ConfigError(f"{one.names[0]!r} and {taken[one.cert]} have the same file, {one.cert.name}; rename one")
        taken[one.cert] = repr(one.names[0])


def _check_place(place: Path, paths: Sequence[Path], *, force: bool) -> None:
    nearest = next(path for path in [place, *place.absolute().parents] if path.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{nearest} is not a directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{nearest} cannot be written to")
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise ConfigError(f"{', '.join(existing)} already there; choose another directory, or --force to replace")


def leaf_of(authority: Any, names: Sequence[str]) -> Any:
    """A certificate for `names`, with its key, as a `trustme.LeafCert`. raises: ConfigError  one is no name."""
    try:
        return authority.issue_cert(*names, common_name=names[0])
    except ValueError as exc:
        raise ConfigError(f"{','.join(names)}: not a host name, IP address or mail address ({exc})") from exc


def _write(path: Path, content: bytes, *, mode: int) -> None:
    # A new file with its mode from the start: a key is at no moment readable by others, nor written through a link.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
