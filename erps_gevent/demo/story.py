"""The story of `erps demo`: its scene and its steps."""

from __future__ import annotations

import itertools
import json
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import gevent
from gevent.subprocess import PIPE, Popen

from erps_gevent import certs
from erps_gevent.demo.shop import HOST, Person, identity
from erps_gevent.errors import CallExit, CallTimeout, Disconnected, ErpsError
from erps_gevent.transport.tls import OneWayTls, Tls

PEOPLE = ("alice", "bob", "carol")
CALLERS = 50  # greenlets that share one client
CALLS_EACH = 20
CASTS = 100
TIMEOUT = 0.2  # seconds that a call is given which is answered later
WORKERS = 20  # greenlets that call without a pause during the rolling restart
LOAD = 0.25  # seconds that they do so before the old daemon is asked to stop, and after it has
STEP_LIMIT = 10.0  # seconds, after which a step has failed

# The child sees what this process sees, whichever directory it was started in.
CHILD = """import sys
sys.path[:] = sys.argv.pop(1).split("\\n")
from erps_gevent.demo.shop import serve
serve(*sys.argv[1:])
"""


class Failed(Exception):
    """A step did not show what it is there to show."""


def expect(fact: object, otherwise: str) -> None:
    if not fact:
        raise Failed(otherwise)


class Demo:
    """The scene: certificates in `directory`, daemons that share one port, three people, and counts of what happened.

    close: what was started or opened here is undone by this stack.
    """

    def __init__(self, directory: Path, close: ExitStack) -> None:
        self.directory = directory
        self.close = close
        self.people: dict[str, Person] = {}
        self.asked = self.answered = self.excused = 0
        self.healed: float | None = None
        self.working = True
        # Bound, and not listening: nobody else is given the port while no daemon has it.
        reserved = close.enter_context(socket.socket())
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((HOST, 0))
        self.port: int = reserved.getsockname()[1]

    @property
    def lost(self) -> int:
        """Calls that should have been answered and were not."""
        return self.asked - self.answered - self.excused

    def ask(self, name: str, request: Any, **options: Any) -> Any:
        """Call, and count it."""
        self.asked += 1
        value = self.people[name].call(request, **options)
        self.answered += 1
        return value

    def ask_in_vain(self, name: str, request: Any, **options: Any) -> CallExit:
        """Make a call that must not be answered; return the error."""
        self.asked += 1
        try:
            self.people[name].call(request, **options)
        except CallExit as error:
            self.excused += 1
            return error
        raise Failed(f"{request!r} was answered")

    def start_daemon(self) -> Any:
        """Start a daemon in a process of its own, and wait until it listens."""
        command = [sys.executable, "-c", CHILD, "\n".join(sys.path), str(self.directory), str(self.port)]
        # In a session of its own: Ctrl-C is for the story, which ends its daemons.
        daemon: Any = Popen(command, stdin=PIPE, stdout=PIPE, start_new_session=True)
        self.close.callback(_end, daemon)
        expect(daemon.stdout.readline().strip() == b"%d" % self.port, "the daemon did not start")
        return daemon

    # The steps, in their order. Each returns the sentence to print.

    def certificates(self) -> str:
        certs.make(self.directory, [HOST], PEOPLE)
        certs.make(self.directory / "elsewhere", [], ["mallory"])
        return f"an authority for the server, {', '.join(PEOPLE)}; another one for mallory"

    def daemon(self) -> str:
        self.running = self.start_daemon()
        return f"process {self.running.pid} serves at {HOST}:{self.port} who shows a certificate"

    def connect(self) -> str:
        for name in PEOPLE:
            person = self.people[name] = Person((HOST, self.port), transport=identity(self.directory, name))
            self.close.callback(person.close)
            person.wait_connected()
            known = self.ask(name, "who")
            expect(known == name, f"{name} is {known!r} to the server")
        assert person.peer is not None
        return f"{', '.join(PEOPLE)}: the server knows each by name, over {person.peer.tls_version}"

    def call(self) -> str:
        times = []
        for _ in range(CALLS_EACH):
            start = monotonic()
            self.ask("alice", ("add", 0))
            times.append(monotonic() - start)
        start = monotonic()
        callers = [gevent.spawn(self._call_often, "alice") for _ in range(CALLERS)]
        gevent.joinall(callers, raise_error=True)
        spent = monotonic() - start
        count = self.ask("alice", ("add", 0))
        expect(count == CALLERS * CALLS_EACH, f"{CALLERS * CALLS_EACH} were added, and the count is {count}")
        return (
            f"one takes {median(times) * 1000:.1f} ms; {count:,} by {CALLERS} greenlets that share a line {spent:.2f} s"
        )

    def _call_often(self, name: str) -> None:
        for _ in range(CALLS_EACH):
            self.ask(name, ("add", 1))

    def state(self) -> str:
        counts = [self.ask(name, ("add", 1)) for name in PEOPLE]
        expect(counts[1:] == [1, 1], f"the counts are {counts}")
        return "each line has a server process of its own: " + ", ".join(
            f"{name} counts {count:,}" for name, count in zip(PEOPLE, counts, strict=True)
        )

    def cast(self) -> str:
        for _ in range(CASTS):
            self.people["bob"].cast(("add", 1))
        count = self.ask("bob", ("add", 0))
        expect(count == CASTS + 1, f"bob counts {count}")
        return f"bob casts {CASTS} times without waiting, and counts {count}"

    def push(self) -> str:
        carol = self.people["carol"]
        carol.cast(("count to", 3))
        heard = [carol.heard.get() for _ in range(3)]
        expect(heard == [1, 2, 3], f"carol heard {heard}")
        return f"the server speaks unasked: carol hears {', '.join(map(str, heard))}"

    def timeout(self) -> str:
        start = monotonic()
        error = self.ask_in_vain("alice", ("sleep", 30.0), timeout=TIMEOUT)
        spent = monotonic() - start
        expect(isinstance(error, CallTimeout), f"it raised {error!r}")
        # libuv counts in milliseconds, and may be one early.
        expect(TIMEOUT - 0.002 <= spent < TIMEOUT + 0.5, f"it took {spent:.4f} s")
        self.ask("alice", ("add", 0))
        return f"a call with timeout={TIMEOUT} of a server that sleeps raises CallTimeout after {spent:.2f} s"

    def kill(self) -> str:
        pending = gevent.spawn(self.ask_in_vain, "alice", ("sleep", 30.0))
        self.ask("alice", ("add", 0))  # answered, so the one before has arrived
        self.running.kill()
        start = monotonic()
        error = pending.get()
        expect(isinstance(error, Disconnected) and error.sent, f"it raised {error!r}")
        return f"SIGKILL for the daemon; a call that waits raises Disconnected after {monotonic() - start:.3f} s"

    def heal(self) -> str:
        healing = [gevent.spawn(self._call_again, name) for name in PEOPLE]
        self.running = self.start_daemon()
        start = monotonic()
        healed = [one.get() for one in healing]
        counts = [count for count, _ in healed]
        expect(counts == [1, 1, 1], f"the counts are {counts}")
        self.healed = max(0.0, *(at - start for _, at in healed))
        return (
            f"process {self.running.pid} takes the port; {self.healed:.2f} s later all three clients have called on, "
            "and count from 1 again"
        )

    def _call_again(self, name: str) -> tuple[int, float]:
        return self.ask(name, ("add", 1), timeout=STEP_LIMIT, wait=True), monotonic()

    def no_certificate(self) -> str:
        return self._impostor(OneWayTls(ca=self.directory / "ca.pem"))

    def other_authority(self) -> str:
        mallory = self.directory / "elsewhere" / "mallory"
        return self._impostor(
            Tls(ca=self.directory / "ca.pem", cert=mallory.with_suffix(".pem"), key=mallory.with_suffix(".key"))
        )

    def _impostor(self, transport: Tls | OneWayTls) -> str:
        with Person((HOST, self.port), transport=transport) as impostor:
            try:
                impostor.call("who", timeout=2.0)
            except Disconnected as error:
                return f'kept out: "{error.__cause__}"'
        raise Failed("the impostor was let in")

    def rolling_restart(self) -> str:
        old, new = self.running, self.start_daemon()
        tokens = itertools.count()
        errors: list[Exception] = []
        workers = [gevent.spawn(self._work, PEOPLE[n % len(PEOPLE)], tokens, errors) for n in range(WORKERS)]
        gevent.sleep(LOAD)
        start = monotonic()
        moved = _stopped(old)
        spent = monotonic() - start
        gevent.sleep(LOAD)
        self.working = False
        gevent.joinall(workers)
        issued = next(tokens)
        for person in self.people.values():
            person.close()
        begun = moved + _stopped(new)
        twice = sum(1 for count in begun.values() if count > 1)
        expect(not errors, f"{len(errors)} calls failed, the first with {errors[:1]}")
        expect(moved and set(begun) == set(range(issued)) and not twice, f"{issued - len(begun)} lost, {twice} twice")
        moves = [person.stats["moves"] for person in self.people.values()]
        expect(moves == [1] * len(PEOPLE), f"the clients moved {moves} times")
        return (
            f"a second daemon takes over under load, the first is gone after {spent:.2f} s: "
            f"{issued:,} calls, each begun once, {sum(moved.values()):,} by the first"
        )

    def _work(self, name: str, tokens: Iterator[int], errors: list[Exception]) -> None:
        while self.working:
            token = next(tokens)
            try:
                expect(self.ask(name, ("work", token)) == token, f"the reply to {token} is another's")
            except (ErpsError, Failed) as error:
                errors.append(error)

    STEPS = (
        *(certificates, daemon, connect, call, state, cast, push, timeout, kill, heal),
        *(no_certificate, other_authority, rolling_restart),
    )


def _stopped(daemon: Any) -> Counter[int]:
    """Ask a daemon to stop, wait until it has, and return what it has executed."""
    daemon.terminate()
    done: dict[str, int] = json.loads(daemon.stdout.read())
    daemon.wait()
    return Counter({int(token): count for token, count in done.items()})


def _end(daemon: Any) -> None:
    with suppress(ProcessLookupError):
        daemon.kill()
    daemon.wait()
    daemon.stdin.close()
    daemon.stdout.close()
