"""The watch: a handler that blocks the hub is named in a warning, with its stack, once per place.

    watch thread                                    the hub's thread
    every half threshold: which handler runs?  ──▶  (only its frames are read; the hub is not woken)
    one does: a sign of life, please           ──▶  a callback, which runs when the hub turns
    none within the threshold, and it is the
    same run of the same handler: its stack    ──▶  a callback that has it logged, when the block is over

Nothing is done for a call, and a hub that waits is not woken. The thread lives while the daemon has servers. It does
not log: under monkey.patch_all() the locks of logging belong to the hub, which is blocked. So a block is logged once it
is over, with its whole length, and one that goes on for STUCK_AFTER is written to standard error meanwhile.

C code that keeps the GIL stops this thread too: it is noticed late, and told from a suspended process by the processor
time of the hub's thread. What blocks outside of a handler is left to gevent's own monitor thread.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import traceback
import weakref
from collections.abc import Sized
from functools import cache
from time import monotonic
from types import CodeType, FrameType
from typing import Any

import gevent
from gevent.hub import Hub
from gevent.monkey import get_original

from erps_gevent.integrations import forks
from erps_gevent.otp import gen_server, loop
from erps_gevent.otp.messages import Event

logger = logging.getLogger("erps_gevent")

# The native ones, also under monkey.patch_all(): this thread has to run while the hub does not.
_start_thread = get_original("_thread", "start_new_thread")
_allocate_lock = get_original("_thread", "allocate_lock")

STUCK_AFTER = 10.0  # seconds after which a block that is not over is written to standard error
LINGER = 2.0  # seconds without a server after which the thread ends; clients that come and go do not start it anew
BUSY = 0.05  # share of processor time that tells one who computes, on a crowded machine, from one who is suspended
MOST_PLACES = 1000  # places that are remembered; what is found beyond them is not named
END_PATIENCE = 0.2  # seconds that a fork or the program's end waits for a thread to be gone

REMEDY = (
    "nothing else runs in its thread meanwhile, no client is served. Use self.run_blocking(function, *args), or a "
    "library that cooperates with gevent, or call gevent.monkey.patch_all() at the very start of the program. "
    "Each place is named once (blocking_threshold)"
)

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LOOP_FILE = loop.Loop.main.__code__.co_filename
_DEFER_FILE = gen_server.GenServer.defer.__code__.co_filename

_named: set[tuple[str, str, int]] = set()
_watches: weakref.WeakSet[Watch] = weakref.WeakSet()


class Handler:
    """A handler that runs in a thread at the moment; `key` is the same as long as it is the same run of it."""

    def __init__(self, key: tuple[int, int], label: str) -> None:
        self.key = key
        self.label = label


class Block:
    """A handler that blocks: its name, since when, and its stack, innermost last."""

    def __init__(self, label: str, since: float, stack: list[tuple[CodeType, int]]) -> None:
        self.label = label
        self.since = since
        self.stack = stack

    def place(self) -> tuple[str, str, int]:
        """The innermost function that is the user's: not of this package, the standard library or one installed."""
        code, _ = next((entry for entry in reversed(self.stack) if _is_users(entry[0])), self.stack[-1])
        return code.co_filename, code.co_name, code.co_firstlineno

    def text(self, seconds: float, verb: str) -> str:
        lines = [(code.co_filename, line, code.co_name, None) for code, line in self.stack]
        summary = "".join(traceback.StackSummary.from_list(lines).format())
        return f"{self.label} {verb} the hub for {seconds:.2f} s: {REMEDY}\n{summary.rstrip()}"


class Watch:
    """Watches the handlers that run in a daemon's hub while it has servers.

    threshold: seconds for which a handler may keep the hub from turning. Named is what blocks twice as long for sure,
               and what blocks longer than that by chance.
    live:      the servers; the thread ends when it has been empty for LINGER.
    """

    hub: Hub

    def __init__(self, threshold: float, live: Sized) -> None:
        self.threshold = threshold
        self.live = live
        self._reset()
        _watches.add(self)

    def _reset(self) -> None:
        self.running = False
        self._lock = _allocate_lock()
        self._called = False
        self._forget()

    def _forget(self) -> None:
        self.asked: float | None = None  # when the sign of life was asked for, that has not come
        self.found: Block | None = None  # the block that goes on
        self.stuck_told = False
        self.key: tuple[int, int] | None = None

    def begin(self, hub: Hub) -> None:
        """A server is about to start in `hub`: be awake."""
        self.hub = hub
        self._called = True
        with self._lock:
            if not self.running:
                self._run_thread()

    def _run_thread(self) -> None:
        _libraries()  # by whom it is watched for: the watch thread imports nothing
        self.running = True
        self._stop = _allocate_lock()
        self._stop.acquire()
        self._ended = _allocate_lock()
        self._ended.acquire()
        try:
            _start_thread(self._run, (self._stop, self._ended))
        except Exception as exc:  # noqa: BLE001  serving goes on without it
            self.running = False
            logger.warning("handlers that block will not be named: the watch thread cannot start: %s", exc)

    def end(self, *, wait: bool = True) -> bool:
        """Have the thread end, and wait until it has; True if there was one."""
        if not self.running:
            return False
        self.running = False
        self._stop.release()
        if wait:
            self._ended.acquire(timeout=END_PATIENCE)
        return True

    # In the watch thread.

    def _run(self, stop: Any, ended: Any) -> None:
        try:
            self._watch(stop)
        except Exception as exc:  # noqa: BLE001  a hub that was taken apart, or an interpreter that goes away
            self.running = False
            if not self.hub.dead:
                _say(f"erps_gevent: the watch of handlers that block has ended: {exc!r}")
        finally:
            ended.release()

    def _watch(self, stop: Any) -> None:
        tick = self.threshold / 2
        needed = before = monotonic()
        spent = self._processor_time()
        while not stop.acquire(timeout=tick):
            now, spent_before, spent = monotonic(), spent, self._processor_time()
            late = now - before - tick
            if self.hub.dead:
                self.running = False
                return
            if late < self.threshold:
                self._look(now)
            elif spent - spent_before > late * BUSY:
                # This thread did not get the GIL: the hub's thread has computed in C all the while.
                self._look_late(now, before)
            else:
                # The process was suspended: by a signal, a debugger, or a machine that slept.
                self._forget()
            before = now
            if self.live or self._called or self.key is not None:
                needed, self._called = now, False
            elif now - needed > LINGER and self._leave():
                return

    def _leave(self) -> bool:
        with self._lock:
            self.running = self._called
            return not self.running

    def _processor_time(self) -> float:
        """Seconds of processor time that the hub's thread has had; 0.0 where nobody can tell."""
        if not hasattr(time, "pthread_getcpuclockid"):
            return 0.0
        return time.clock_gettime(time.pthread_getcpuclockid(self.hub.thread_ident))

    def _look(self, now: float) -> None:
        handler, stack = running_handler(self.hub.thread_ident)
        asked = self.asked
        if handler is None:
            self._forget()
        elif handler.key != self.key or asked is None:
            self._forget()
            self.key = handler.key
            self._ask(now)
        elif now - asked >= self.threshold:
            self._blocks(Block(handler.label, asked, stack), now)

    def _look_late(self, now: float, since: float) -> None:
        handler, stack = running_handler(self.hub.thread_ident)
        if handler is not None:
            self._blocks(Block(handler.label, since, stack), now)

    def _ask(self, now: float) -> None:
        self.asked = now
        self.hub.loop.run_callback_threadsafe(self._alive, now)

    def _alive(self, asked: float) -> None:
        # In the hub. What is seen at the next look has begun, or gone on, after this.
        if self.asked == asked:
            self._forget()

    def _blocks(self, block: Block, now: float) -> None:
        found = self.found
        if found is None:
            self.found = block
            if _is_new(block):
                self.hub.loop.run_callback_threadsafe(self._over, block)
        elif now - found.since >= STUCK_AFTER and not self.stuck_told:
            self.stuck_told = True
            _say(f"erps_gevent: {block.text(now - found.since, 'has been blocking')}")

    def _over(self, block: Block) -> None:
        # In the hub, which turns again. A hub callback does not log.
        gevent.spawn(logger.warning, "%s", block.text(monotonic() - block.since, "has blocked"))


def running_handler(thread: int) -> tuple[Handler | None, list[tuple[CodeType, int]]]:
    """The handler that runs in a native thread, and its stack with the innermost last; None and [] if none does.

    The frames are let go of at once: one that ends meanwhile would have its values die in this thread.
    """
    stack: list[tuple[CodeType, int]] = []
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None:
        handler = _handler_at(frame)
        if handler is not None:
            outside = [entry for entry in stack if not entry[0].co_filename.startswith(_PACKAGE)]
            kept = stack[: stack.index(outside[-1]) + 1] if outside else stack
            return handler, kept[::-1] or [(frame.f_code, frame.f_lineno)]
        stack.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return None, []


def _handler_at(frame: FrameType) -> Handler | None:
    name = frame.f_code.co_filename
    if name == _LOOP_FILE:
        values = frame.f_locals
        runs = values.get("self")
        if isinstance(runs, loop.Loop) and frame.f_code.co_name != "start":
            event = values.get("event")
            return Handler((id(runs), id(event)), f"{runs.process.label}.{_callback(frame.f_code.co_name, event)}")
    elif name == _DEFER_FILE and frame.f_code.co_name == "run":
        values = frame.f_locals
        function = getattr(values.get("function"), "__qualname__", "a function")
        server = values.get("server")
        return Handler((id(server), id(values.get("from_"))), f"{getattr(server, 'label', server)}.defer of {function}")
    return None


def _callback(method: str, event: Any) -> str:
    if method in ("init", "terminate"):
        return method
    return event.callback if isinstance(event, Event) else Event.callback


def _is_users(code: CodeType) -> bool:
    name = code.co_filename
    return not name.startswith((_PACKAGE, *_libraries(), "<frozen"))


@cache
def _libraries() -> tuple[str, ...]:
    import sysconfig  # slow to load, and needed when there are servers only

    return tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _is_new(block: Block) -> bool:
    place = block.place()
    if place in _named or len(_named) >= MOST_PLACES:
        return False
    _named.add(place)
    return True


def _say(text: str) -> None:
    if sys.__stderr__ is not None:
        print(text, file=sys.__stderr__, flush=True)


# A thread that is in Python while the interpreter goes away, or while the process forks, is a hazard to it.

_paused: list[Watch] = []


def _end_all() -> None:
    _paused[:] = [watch for watch in list(_watches) if watch.end()]


def _go_on() -> None:
    for watch in _paused:
        watch.begin(watch.hub)
    _paused.clear()


def _after_fork() -> None:
    """In a child the watch begins anew with the first server that starts there."""
    _paused.clear()
    for watch in list(_watches):
        watch._reset()


atexit.register(_end_all)
forks.in_child(_after_fork)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_end_all, after_in_parent=_go_on)
