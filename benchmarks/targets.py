"""What is to be reached, as ratios within one run: the one table of it, for run.py and check.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cases import FOREIGN, TCP, TLS, R
from figures import ratio

Rounds = Callable[[str, str, str], list[float]]
"""(case, entry, metric) to what the rounds gave; empty when that was not measured."""


@dataclass(frozen=True)
class Target:
    """A ratio and its bounds. `per` is a number, or (entry, metric) of the same case; `most`: smaller is better."""

    title: str
    case: str
    entry: str
    metric: str
    per: tuple[str, str] | float
    bound: float
    aim: float
    unit: str
    most: bool = False

    def measured(self, rounds: Rounds) -> float | None:
        """The ratio of medians; None when one of the two was not measured."""
        ours = rounds(self.case, self.entry, self.metric)
        base = rounds(self.case, *self.per) if isinstance(self.per, tuple) else [self.per]
        return ratio(ours, base) if ours and base else None

    def missed(self, measured: float, margin: float = 0.0) -> bool:
        """True if it is beyond the bound by more than `margin`, a share of the bound."""
        return measured > self.bound * (1 + margin) if self.most else measured < self.bound * (1 - margin)


def rate(title: str, case: str, entry: str, per: str, bound: float, aim: float, unit: str = "R") -> Target:
    return Target(title, case, entry, "rate", (per, "rate"), bound, aim, unit)


TARGETS = (
    rate("one caller, TCP", "one", TCP, R, 0.75, 0.85),
    Target("p99 of one caller, TCP", "one", TCP, "p99", (R, "p99"), 2.0, 2.0, "R's p99", most=True),
    rate("100 callers, one line, TCP", "hundred", TCP, R, 5.0, 7.0),
    rate("100 lines, a caller each, TCP", "hundred-lines", TCP, R, 3.5, 4.5),
    rate("one caller, two-way TLS", "one", TLS, TCP, 0.75, 0.85, "own TCP"),
    rate("100 callers, two-way TLS", "hundred", TLS, TCP, 0.9, 1.0, "own TCP"),
    rate("1 MiB of bytes each way", "payload-1MiB", TCP, R, 0.5, 0.8, "raw sendall/recv"),
    rate("against zerorpc, 100 callers", "hundred", TCP, "zerorpc", 12.0, 20.0, "zerorpc"),
    rate("against grpcio, 100 callers", "hundred", TCP, "grpcio threads", 12.0, 20.0, "grpcio threads"),
    rate("against grpcio aio, 100 callers", "hundred", TCP, "grpcio aio", 12.0, 20.0, "grpcio aio"),
    rate("casts, one line", "casts", TCP, R, 12.0, 20.0),
    rate("foreign thread, one caller", "one", FOREIGN, R, 0.4, 0.6),
    Target("idle line, server side", "idle", TCP, "bytes", 1024.0, 24.0, 16.0, "KiB", most=True),
    Target(
        "import", "import", "erps_gevent", "micros", ("what it stands on", "micros"), 1.3, 1.1, "its parts", most=True
    ),
)
