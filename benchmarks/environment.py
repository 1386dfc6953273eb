"""What a race needs around it: the peers' packages, certificates, and what to say about the machine."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from erps_gevent import certs

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
REQUIREMENTS = HERE / "requirements.txt"


def peers() -> tuple[str, str]:
    """(the Python of the peers' environment, what is wrong with it); makes the environment if it is not there yet."""
    python = PEERS / "bin" / "python"
    made_of = PEERS / "made-of.txt"
    wanted = f"{sys.version}\n{REQUIREMENTS.read_text()}"
    if made_of.exists() and made_of.read_text() == wanted:
        return str(python), ""
    print(f"making {PEERS} for the peers ...", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(PEERS)],
        [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)],
    ):
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            return str(python), f"not installed: {said[-1]}"
    made_of.write_text(wanted)
    return str(python), ""


def certificates(directory: Path) -> dict[str, str]:
    """The files of a new authority, a server and a client. raises: ConfigError  trustme is not installed."""
    issued = certs.make(directory / "certs", ["localhost,127.0.0.1"], ["driver"])
    (server,), (client,) = issued.servers, issued.clients
    files = {
        "ca": issued.ca,
        "server_cert": server.cert,
        "server_key": server.key,
        "client_cert": client.cert,
        "client_key": client.key,
    }
    return {name: str(path) for name, path in files.items()}


def about(versions: dict[str, str]) -> dict[str, str]:
    """The date, the kind of machine and the versions: no name of a host or a user."""
    import gevent

    return {
        "date": date.today().isoformat(),
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("gevent", "greenlet", "cbor2")},
        "loop": type(gevent.get_hub().loop).__module__.split(".")[1],
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
        **versions,
    }


def cpu_model() -> str:
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


class Weather:
    """What share of the machine's cores worked for others during a `with`, whose children have ended at its end."""

    elsewhere = 0.0

    def __enter__(self) -> Weather:
        self._begun = busy_seconds(), own_seconds(), perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        busy, own, now = busy_seconds(), own_seconds(), perf_counter()
        others = (busy - self._begun[0]) - (own - self._begun[1])
        self.elsewhere = max(0.0, others / (now - self._begun[2]) / (os.cpu_count() or 1))


def busy_seconds() -> float:
    """Of all cores, since the machine was started."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _wait, *interrupts = map(int, stat.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Of this process and its children that have ended."""
    return sum(os.times()[:4])
