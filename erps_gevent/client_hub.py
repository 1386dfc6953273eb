"""Which hub a client lives in, and the ways into it from any thread.

    call, cast ──▶ this thread's hub is the client's? ─ yes ─▶ a line that is up and has room: written at once
                                │ no                                    else: a greenlet waits for one
                                ▼
                     foreign.py posts them there, and this thread waits

A hub that does not turn may not hold a caller for longer than its timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from gevent import getcurrent
from gevent._hub_local import get_hub_if_exists
from gevent.hub import MAIN_THREAD_IDENT, Hub, get_hub  # type: ignore[attr-defined]
from gevent.monkey import get_original, is_module_patched

from erps_gevent.errors import CallExit, Disconnected, NoProc
from erps_gevent.foreign import ForeignCall, ForeignCast
from erps_gevent.healing import Healer
from erps_gevent.integrations import forks
from erps_gevent.integrations.threads import hub_thread
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.bridge import FORKED, Job, get_ident
from erps_gevent.outbox import HIGH_WATER

T = TypeVar("T")

_allocate_lock = get_original("_thread", "allocate_lock")
_choosing = _allocate_lock()
_check_timeout = behaviour.number(0, none=True)

ORPHANED = 'the thread whose hub has this client has ended; use it first in one that lives on, or give hub="thread"'


def _new_lock() -> None:
    """Another thread of the parent may have held it."""
    global _choosing
    _choosing = _allocate_lock()


forks.in_child(_new_lock)


def _turns_here() -> bool:
    """Whether the hub of this thread turns when others wait: this is a greenlet of it, or the whole program is patched.

    Of a patched program that is true in the main thread: the others that there are come from outside, or are workers of
    gevent's thread pool, and turn a hub only while they wait themselves.
    """
    hub = get_hub_if_exists()
    running: Any = getcurrent()
    while running is not None and running is not hub:
        running = running.parent
    return running is not None or (is_module_patched("threading") and get_ident() == MAIN_THREAD_IDENT)


class ClientHub:
    """The hub of one client, chosen at its first use.

    wanted:    the option `hub`: "auto", "here" or "thread".
    hub:       None as long as it is not chosen.
    in_thread: it is the hub thread's.
    closed:    nothing is to be begun any more.
    healer:    who keeps the line up; None as long as the client's process has not begun.
    """

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.hub: Hub | None = None
        self.in_thread = False
        self.closed = False
        self.healer: Healer | None = None

    def ready(self, deadline: float | None = None) -> Healer:
        """The healer, once there is one. In the client's hub; parks."""
        raise NotImplementedError

    def choose_hub(self) -> Hub | None:
        """Decide, once, which hub owns the socket. None if it will never be needed: the client is closed."""
        with _choosing:
            if self.hub is None and not self.closed:
                self.in_thread = self.wanted == "thread" or (self.wanted == "auto" and not _turns_here())
                if self.in_thread:
                    self.hub = hub_thread()
                else:
                    self.hub = get_hub()
            return self.hub

    def call(self, request: Any, timeout: float | None = 5.0, wait: bool = False) -> Any:
        if timeout.__class__ is not float or not 0 <= timeout <= behaviour.LONGEST:
            _check_timeout("timeout", timeout)
        forks.check()
        hub = self.hub or self.choose_hub()
        if hub is not None and bridge.is_foreign(hub):
            return self._from_afar(hub, ForeignCall(self.healer, self._call, request, timeout, wait))
        healer = self.healer
        line = healer.line if healer is not None else None
        # A line that is up and has room, which is nearly always, is used without asking further.
        if line is None or line.cause is not None or line.doubt is not None or line.outbox.size > HIGH_WATER:
            return self._call(request, timeout, wait)
        try:
            return line.call(request, timeout, timeout)
        except CallExit as error:
            error.request = request
            raise

    def cast(self, request: Any, timeout: float | None = 5.0, wait: bool = False) -> None:
        if timeout.__class__ is not float or not 0 <= timeout <= behaviour.LONGEST:
            _check_timeout("timeout", timeout)
        forks.check()
        hub = self.hub or self.choose_hub()
        if hub is not None and bridge.is_foreign(hub):
            self._from_afar(hub, ForeignCast(self.healer, self._cast, request, timeout, wait))
            return
        healer = self.healer
        line = healer.line if healer is not None else None
        if line is None or line.cause is not None or line.doubt is not None or line.outbox.size > HIGH_WATER:
            self._cast(request, timeout, wait)
            return
        try:
            line.cast(request)
        except CallExit as error:
            error.request = request
            raise

    def _from_afar(self, hub: Hub, job: ForeignCast) -> Any:
        try:
            return self._run_job(hub, job, job.timeout)
        except CallExit as error:
            error.request = job.request
            raise

    def wait_connected(self, timeout: float | None) -> None:
        _check_timeout("timeout", timeout)
        self.run(self._wait_connected, timeout, patience=timeout)

    def run(self, function: Callable[..., T], *args: Any, patience: float | None = None) -> T:
        """Run it in the client's hub."""
        forks.check()
        hub = self.hub or self.choose_hub()
        if hub is not None and bridge.is_foreign(hub):
            return self._run_job(hub, Job(function, args), patience)
        return function(*args)

    def _run_job(self, hub: Hub, job: Job[T], patience: float | None) -> T:
        try:
            return bridge.run_job(hub, job, patience)
        except NoProc as error:
            if error.reason == FORKED:
                raise Disconnected(forks.FORKED_TEXT, reason=FORKED, sent=True) from error
            if not hub.dead and hub not in bridge.standing_still:
                raise
            text = ORPHANED if hub.dead else str(error)
            raise Disconnected(text, reason="thread_ended", sent=error.sent) from error

    # In the client's hub.

    def _call(self, request: Any, timeout: float | None, wait: bool) -> Any:
        deadline = None if timeout is None else monotonic() + timeout
        try:
            healer = self.healer or self.ready(deadline)
            line = healer.usable(deadline, wait)
            return line.call(request, timeout, None if deadline is None else max(deadline - monotonic(), 0.0))
        except CallExit as error:
            error.request = request
            raise

    def _cast(self, request: Any, timeout: float | None, wait: bool) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        try:
            healer = self.healer or self.ready(deadline)
            healer.usable(deadline, wait).cast(request)
        except CallExit as error:
            error.request = request
            raise

    def _wait_connected(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        self.ready(deadline).usable(deadline, wait=True)
