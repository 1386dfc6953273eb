"""How long a client waits before it dials again."""

from __future__ import annotations

import random
from time import monotonic

from erps_gevent.errors import Overloaded, ProtocolError
from erps_gevent.transport.reasons import LASTING

FIRST_CEILING = 0.05  # seconds. Doubled with each attempt ...
QUICK_CEILING = 0.8  # ... up to this for the first QUICK_FOR seconds, so that a restart is over within a second,
QUICK_FOR = 30.0  # ... and from then on doubled up to the cap.


class Backoff:
    """Delays of one client, at random under a growing ceiling, so that a thousand clients do not come at once.

    cap: seconds, the highest ceiling.
    """

    def __init__(self, cap: float) -> None:
        self.cap = cap
        self.reset()

    def reset(self) -> None:
        """The line has been of use: begin anew."""
        self._count = 0
        self._since: float | None = None
        self._ceiling = QUICK_CEILING

    def delay(self, error: Exception) -> float:
        """Seconds until the next attempt, after one that ended with `error`.

        What lasts is tried at the slow rate; a server that is full says itself how long it wants to be left alone.
        """
        if lasts(error):
            return random.uniform(0.5, 1.0) * self.cap
        now = monotonic()
        if self._since is None:
            self._since = now
        if now - self._since < QUICK_FOR:
            self._ceiling = min(QUICK_CEILING, FIRST_CEILING * 2.0 ** min(self._count, 16))
        else:
            self._ceiling = max(self._ceiling, QUICK_CEILING) * 2
        self._ceiling = min(self._ceiling, self.cap)
        self._count += 1
        return random.uniform(0.0, self._ceiling) + min(_asked_for(error), self.cap)


def _asked_for(error: Exception) -> float:
    wanted = error.retry_after if isinstance(error, Overloaded) else None
    # A peer may say anything, also NaN.
    return wanted if wanted is not None and wanted > 0.0 else 0.0


def lasts(error: Exception) -> bool:
    """True for what stays wrong until somebody changes a file or an option."""
    reason = getattr(error, "reason", None)
    # That of a ServerExit may be any value that came from the peer.
    return isinstance(error, ProtocolError) or (isinstance(reason, str) and reason in LASTING)
