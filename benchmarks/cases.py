"""What is measured: the cases, and who runs in each.

The first entry of a case is what the others are compared with. `R` is the floor, raw gevent echo of the same bytes by
one caller; it runs in every case of calls, so that each ratio is of one run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

KIB, MIB = 1024, 1024 * 1024
R = "R (raw gevent, one caller)"
TCP, TLS, FOREIGN = "erps TCP", "erps TLS", "erps TCP, foreign thread"
FRESH_ROUNDS = 3
PLAIN = 16  # bytes of a payload, where nothing else is said


@dataclass(frozen=True)
class Entry:
    """A contestant in a case."""

    name: str
    module: str
    plan: dict[str, Any] = field(default_factory=dict)
    peer: bool = False
    served: bool = True


@dataclass(frozen=True)
class Case:
    """What the entries do; `metric` is the figure that its table shows as a ratio.

    `fresh`: every round has new processes, because memory that was freed would be used again; at most FRESH_ROUNDS.
    """

    name: str
    title: str
    plan: dict[str, Any]
    entries: tuple[Entry, ...]
    metric: str = "rate"
    fresh: bool = False

    def plan_of(self, entry: Entry) -> dict[str, Any]:
        return {"size": PLAIN, **self.plan, **entry.plan}


floor = Entry(R, "raw_gevent", {"load": "sequential"})
raw_threads = Entry("raw blocking sockets", "raw_threads")
tcp = Entry(TCP, "erps")
tls = Entry(TLS, "erps", {"tls": True})
foreign = Entry(FOREIGN, "erps", {"hub": "thread"})
peers = (
    Entry("zerorpc", "zerorpc_", peer=True),
    Entry("RPyC", "rpyc_", peer=True),
    Entry("Pyro5", "pyro5_", peer=True),
    Entry("grpcio threads", "grpcio_threads", peer=True),
    Entry("grpcio aio", "grpcio_aio", peer=True),
)
# A Pyro5 proxy belongs to one thread; an RPyC line serves its callers one at a time. zerorpc and grpcio share one line.
OWN_LINE_EACH = {"RPyC", "Pyro5"}


def peers_together(callers: int) -> tuple[Entry, ...]:
    """The peers with so many callers: on one line, but a line for each caller where one line serves one at a time."""
    own = {"connections": callers}
    return tuple(replace(peer, plan=own) if peer.name in OWN_LINE_EACH else peer for peer in peers)


def callers(count: int, connections: int) -> dict[str, Any]:
    return {"load": "together", "callers": count, "connections": connections}


def payload(name: str, title: str, **plan: Any) -> Case:
    return Case(f"payload-{name}", f"{title} each way, one caller", {"load": "sequential", **plan}, (floor, tcp, tls))


def local(name: str, title: str, metric: str = "rate") -> Case:
    bare, ours = ({"load": f"local_{name}", "who": who} for who in ("bare", "ours"))
    entries = (Entry("bare gevent", "local", bare, served=False), Entry("erps otp", "local", ours, served=False))
    return Case(f"local-{name}", title, {}, entries, metric, fresh=metric == "bytes")


def imports() -> Case:
    parts = "gevent, gevent.ssl, gevent.server, gevent.pool, cbor2, packaging.specifiers"
    base = Entry("what it stands on", "importing", {"modules": parts}, served=False)
    # What our modules import of the standard library: for types that travel, signatures, forks and signing.
    standard = "ctypes, dataclasses, datetime, decimal, fractions, hmac, inspect, mmap, random, uuid, zlib"
    more = Entry("and its part of the standard library", "importing", {"modules": f"{parts}, {standard}"}, served=False)
    ours = Entry("erps_gevent", "importing", {"modules": "erps_gevent"}, served=False)
    title = "import erps_gevent against what it stands on"
    return Case("import", title, {"load": "importing"}, (base, more, ours), "micros")


def idle(count: int) -> Case:
    bare = Entry("gevent greenlet and socket", "raw_gevent")
    plan, title = {"load": "idle", "connections": count}, f"memory of the server for each of {count:,} idle lines"
    return Case("idle", title, plan, (bare, tcp), "bytes", fresh=True)


def beside(count: int) -> Entry:
    return Entry(f"beside {count:,} idle lines", "erps", {"idle": count})


bare_tls = Entry("bare gevent TLS", "raw_gevent", {"tls": True})

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("one", "one caller", {"load": "sequential"}, (floor, raw_threads, tcp, tls, foreign, *peers)),
        Case("hundred", "100 callers, one line", callers(100, 1), (floor, tcp, tls, *peers_together(100))),
        Case("thousand", "1,000 callers, one line", callers(1000, 1), (floor, tcp, tls)),
        Case(
            "hundred-lines",
            "100 lines, a caller each",
            callers(100, 100),
            (floor, Entry("raw gevent, 100 lines", "raw_gevent"), tcp, tls),
        ),
        Case("casts", "casts one way, until confirmed", {"load": "casts"}, (floor, tcp, tls)),
        Case(
            "pushes",
            "one message pushed to 1,000 clients",
            {"load": "pushes", "connections": 1000},
            (Entry("bare gevent", "raw_gevent"), tcp),
        ),
        payload("16B", "16 bytes", size=16),
        payload("1KiB", "1 KiB of bytes", size=KIB),
        payload("64KiB", "64 KiB of bytes", size=64 * KIB),
        payload("1MiB", "1 MiB of bytes", size=MIB),
        payload("16MiB", "16 MiB of bytes, less what goes around them", size=16 * MIB - 64),
        payload("dicts", "1,000 small dicts", kind="dicts"),
        Case(
            "connects",
            "connections made with two-way TLS, 8 at a time",
            {"load": "connects", "callers": 8, "tls": True},
            (bare_tls, tls),
        ),
        idle(10_000),
        Case(
            "idle-tls",
            "memory of the server for each of 2,000 idle lines with TLS",
            {"load": "idle", "connections": 2000},
            (bare_tls, tls),
            "bytes",
            fresh=True,
        ),
        Case("growth", "one caller beside idle lines", {"load": "sequential"}, tuple(map(beside, (0, 999, 9_999)))),
        local("call", "a call between two processes of one program"),
        local("chain", "hops of a message through 1,000 processes"),
        local("processes", "memory of a process that waits", "bytes"),
        imports(),
    )
}
QUICK = ("one", "hundred", "hundred-lines", "casts", "payload-1MiB", "import")
