"""What the tests of the kernel share: a server that does what a test tells it, plain processes, native threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.monkey import get_original, is_module_patched

from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.messages import Reply
from erps_gevent.otp.process import Pid, Process
from erps_gevent.otp.waiting import TIMED_OUT

PATIENCE = 10.0  # seconds: a bound for what takes milliseconds

_start_raw_thread = get_original("_thread", "start_new_thread")


class Log(list[Any]):
    """A list that one can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._news = Event()

    def append(self, entry: Any) -> None:
        super().append(entry)
        self._news.set()

    def wait_for(self, entry: Any) -> None:
        with gevent.Timeout(PATIENCE):
            while entry not in self:
                self._news.clear()
                self._news.wait()


class Probe(GenServer):
    """A function as a request, message or argument of Continue is run; anything else is echoed and noted in `log`."""

    def init(self, log: list[Any] | None = None, begin: Callable[[Any], Any] | None = None) -> Any:
        self.log = [] if log is None else log
        return begin(self) if begin else None

    def handle_call(self, request: Any, from_: Any) -> Any:
        if callable(request):
            return request(self, from_)
        self.log.append(("call", request))
        return Reply(request)

    def handle_cast(self, request: Any) -> Any:
        return self._take("cast", request)

    def handle_info(self, message: Any) -> Any:
        return self._take("info", message)

    def handle_continue(self, argument: Any) -> Any:
        return self._take("continue", argument)

    def terminate(self, reason: Any) -> Any:
        self.log.append(("terminate", reason))

    def _take(self, kind: str, what: Any) -> Any:
        if callable(what):
            return what(self)
        self.log.append((kind, what))
        return None


class Phonebook:
    """A registrar of our own, as anybody may write one."""

    def __init__(self) -> None:
        self.entries: dict[Any, tuple[Any, Any]] = {}

    def whereis_name(self, key: Any) -> Any:
        pid, _ = self.entries.get(key, (None, None))
        return pid

    def register_name(self, key: Any, pid: Any, value: Any) -> bool:
        return self.entries.setdefault(key, (pid, value))[0] is pid

    def unregister_name(self, key: Any) -> None:
        self.entries.pop(key, None)


def ended(pid: Pid | Process) -> Any:
    """Wait until the process is dead; its exit reason, or NOPROC if it was dead before."""
    process = pid.process if isinstance(pid, Pid) else pid
    reason = process.join(PATIENCE)
    assert reason is not TIMED_OUT, f"{process.pid!r} lives"
    return reason


def spawn(main: Callable[[Process], object], *, trap: bool = False, label: str = "test") -> Process:
    """A process that runs `main(process)`; it begins at the next switch."""
    process = Process(Inbox(), label)
    process.trap_exit = trap
    process.spawn(lambda: main(process))
    return process


def settle() -> None:
    """Let run all that can run now, and what follows from it."""
    for _ in range(10):
        gevent.sleep(0)


class Clock:
    """The clock of loops and inboxes, in which time passes when a test says so."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return monotonic() + self.skipped

    def advance(self, seconds: float, *pids: Pid) -> None:
        """Let so much time pass for these processes, and let them do what it is time for."""
        self.skipped += seconds
        for pid in pids:
            pid.process.inbox.wake()
        settle()


def idle(_process: Process) -> None:
    """A main that lives until it is ended from outside."""
    Event().wait()


def as_process(main: Callable[[Process], Any], *, trap: bool = False) -> Any:
    """Run `main(process)` as a process and return its value; a failure in it is the test's."""
    got: list[Any] = []
    failures: list[BaseException] = []

    def run(process: Process) -> None:
        try:
            got.append(main(process))
        except Exception as error:  # noqa: BLE001  raised again below
            failures.append(error)

    reason = ended(spawn(run, trap=trap))
    if failures:
        raise failures[0]
    assert got, f"the process ended with {reason!r}"
    return got[0]


class Native:
    """`function(*args)` in a native thread of its own, which has no hub until it asks for one."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self._hub = get_hub()
        self._done = Event()
        if is_module_patched("threading"):
            _start_raw_thread(self._run, (function, args))
        else:  # which coverage sees
            threading.Thread(target=self._run, args=(function, args), daemon=True).start()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.value = function(*args)
        except BaseException as error:  # noqa: BLE001  raised again in `result`
            self.error = error
        finally:
            self._hub.loop.run_callback_threadsafe(self._done.set)

    def result(self) -> Any:
        """Wait, cooperatively, and return or raise what the function did."""
        assert self._done.wait(PATIENCE), "the thread still runs"
        if self.error is not None:
            raise self.error
        return self.value
