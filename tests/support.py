"""What the tests share: the unit of time, certificates on disk, and a Python child that sees this package."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

import erps_gevent.errors

MS = 0.001  # seconds. Tests write their times in it: 5 * MS.

ROOT = Path(__file__).resolve().parents[1]  # the repository: examples/ and README.md are below it
PACKAGE = Path(erps_gevent.errors.__file__).resolve().parent


@dataclass(frozen=True)
class Certs:
    """Paths of one certificate authority's files, as strings. `identity(name)` is what `erps.Tls(**...)` takes."""

    directory: Path

    @property
    def ca(self) -> str:
        """The authority's own certificate."""
        return str(self.directory / "ca.pem")

    def cert(self, name: str) -> str:
        """The certificate that was issued to `name`."""
        return str(self.directory / f"{name}.pem")

    def key(self, name: str) -> str:
        """The key of `name`, not encrypted."""
        return str(self.directory / f"{name}.key")

    def identity(self, name: str) -> dict[str, str]:
        """The keywords `ca`, `cert` and `key` of `name`."""
        return {"ca": self.ca, "cert": self.cert(name), "key": self.key(name)}


def issue(directory: Path, people: dict[str, tuple[str, ...]], **options: Any) -> Certs:
    """Make an authority in `directory`, and a certificate for each of `people`: file name -> names in the certificate.

    options: for `trustme.CA.issue_cert`, such as `not_after`.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    for file_name, names in people.items():
        issued = authority.issue_cert(*names, common_name=file_name, **options)
        certs = Certs(directory)
        issued.private_key_pem.write_to_path(certs.key(file_name))
        for position, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(certs.cert(file_name), append=position > 0)
    return Certs(directory)


def child_environ(**extra: str) -> dict[str, str]:
    """The environment for a child process: this one's, with the package under test first on its path."""
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **extra}


def run_python(*args: str | Path, cwd: Path | None = None, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run this Python with `args` to its end, within `timeout` seconds; its output is text."""
    command = [sys.executable, *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env=child_environ(), timeout=timeout, capture_output=True, text=True, check=False
    )
