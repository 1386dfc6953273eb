"""What the ported tests of Erps share: callbacks that note what they were given and wait for the answer to give.

In Erps' own tests a callback sends what it got to the test and receives the tuple that it returns. Here the test
injects `(notes, answer)`: the answer, and in place of a new state what is told from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faces import PATIENCE, House, Notes
from gevent.queue import Queue

import erps_gevent as erps

Answers = Queue  # of (notes, answer)


class _Injected:
    notes: Notes
    answers: Any

    def _take(self, what: str, content: Any) -> Any:
        self.notes(what, content)
        self.notes, answer = self.answers.get(timeout=PATIENCE)
        return answer


class Server(_Injected, erps.Server):
    """Answers "ping" by itself, and notes that it was called."""

    def init(self, notes: Notes, answers: Any) -> None:
        self.notes, self.answers = notes, answers
        notes("server", self.pid)

    def handle_call(self, request: Any, from_: erps.From) -> Any:
        if request == "ping":
            self.notes("ping")
            return erps.Reply("ok")
        return self._take("called", (from_, request))

    def handle_cast(self, request: Any) -> Any:
        return self._take("casted", request)

    def handle_info(self, message: Any) -> Any:
        return self._take("sent", message)

    def handle_continue(self, argument: Any) -> None:
        self.notes("continue", argument)


class Client(_Injected, erps.Client):
    """Notes what the server pushes, what its process is sent, and its end."""

    def init(self, notes: Notes, answers: Any) -> None:
        self.notes, self.answers = notes, answers

    def handle_connect(self, peer: erps.Peer) -> None:
        self.notes("connect", peer)

    def handle_push(self, message: Any) -> Any:
        return self._take("push", message)

    def handle_info(self, message: Any) -> Any:
        return self._take("info", message)

    def terminate(self, reason: Any) -> None:
        self.notes("terminate", reason)


class Deaf(erps.Client):
    """A client without callbacks."""


class Echo(erps.Server):
    """Answers "ping", and sends back whatever else it is called with."""

    def init(self, notes: Notes | None = None) -> None:
        self.notes = notes or Notes()
        self.notes("server", self.pid)

    def handle_call(self, request: Any, from_: erps.From) -> Any:
        return erps.Reply("pong" if request == "ping" else request)

    def handle_cast(self, request: Any) -> None:
        self.notes("cast", request)


def started(house: House, cls: type[erps.Client], to: Any, *args: Any, **options: Any) -> erps.Pid:
    """The pid of a client that was started as a process of its own, as Erps.Client.start/3 does."""
    options.setdefault("transport", house.wire.client)
    address = to.address if isinstance(to, erps.Daemon) else to
    pid = cls.start(address, *args, hub="here", **options)
    house.pids.append(pid)
    return pid


def down(pid: erps.Pid) -> Callable[[], Any]:
    """Monitor `pid` from now on; what is returned waits for its end and returns its exit reason."""
    ref = erps.monitor(pid)

    def of_this(message: Any) -> bool:
        return isinstance(message, erps.Down) and message.ref == ref

    return lambda: erps.receive(of_this, timeout=PATIENCE).reason
