"""Links, monitors, exit signals and names against a plain model of the rules (6 to 8 and 11 of OTP).

The model knows sets and one table; the processes are real. After each step both must agree on who lives, who is linked
with whom, who has which name, and what is in each mailbox.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.queue import Queue
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from otp.kernel import PATIENCE, ended

from erps_gevent.errors import AlreadyStarted, ConfigError, Exit, NoProc
from erps_gevent.otp import primitives as erps
from erps_gevent.otp.process import Down, ExitSignal, whereis
from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN

REASONS = st.sampled_from([NORMAL, SHUTDOWN, "abnormal", KILL])
NAMES = st.sampled_from(["model-a", "model-b"])
PLACES = 3  # so few that their links, monitors and names meet
PLACE = st.integers(0, PLACES - 1)


class Worker:
    """A real process that does what it is asked to, one thing at a time, and leaves its mailbox alone."""

    def __init__(self) -> None:
        self.jobs: Queue[Any] = Queue()
        self.pid = erps.spawn(self.main)

    def main(self) -> None:
        while True:
            function, args, result = self.jobs.get()
            try:
                result.set(function(*args))
            except (NoProc, AlreadyStarted, ConfigError) as error:
                result.set(type(error))

    def begin(self, function: Any, *args: Any) -> AsyncResult[Any]:
        result: AsyncResult[Any] = AsyncResult()
        self.jobs.put((function, args, result))
        return result

    def do(self, function: Any, *args: Any) -> Any:
        return self.begin(function, *args).get(timeout=PATIENCE)


class Twin:
    """What the model knows of one process."""

    def __init__(self, pid: Any) -> None:
        self.pid = pid
        self.alive = True
        self.trapping = False
        self.name: str | None = None
        self.links: set[Twin] = set()
        self.monitors: dict[int, tuple[Twin, Any]] = {}  # by reference: who watches, and under which target
        self.mailbox: Counter[Any] = Counter()

    def gets(self, message: Any) -> None:
        if self.alive:
            self.mailbox[message] += 1

    def signal(self, sender: Any, reason: Any) -> None:
        """Rules 7, but for `exit_(pid, KILL)`."""
        if not self.alive:
            return
        if self.trapping:
            self.gets(ExitSignal(sender, reason))
        elif reason is not NORMAL or sender is self.pid:
            self.ends(reason)

    def ends(self, reason: Any) -> None:
        self.alive, self.name = False, None
        for ref, (watcher, target) in self.monitors.items():
            watcher.gets(Down(ref, target, reason))
        links, self.links = self.links, set()
        for linked in links:
            linked.links.discard(self)
        for linked in links:
            linked.signal(self.pid, reason)


class Processes(RuleBasedStateMachine):
    """One process in each place; a dead one may be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = [Worker() for _ in range(PLACES)]
        self.twins = {worker: Twin(worker.pid) for worker in self.workers}
        gevent.sleep(0)

    def settle(self) -> None:
        # Each death of a cascade takes a turn or two of the loop.
        for _ in range(2 * PLACES + 4):
            gevent.sleep(0)

    def pair(self, one: int, other: int) -> tuple[Worker, Twin, Worker, Twin]:
        worker, peer = self.workers[one], self.workers[other]
        return worker, self.twins[worker], peer, self.twins[peer]

    @rule(place=PLACE)
    def spawn(self, place: int) -> None:
        if not self.twins[self.workers[place]].alive:
            self.workers[place] = Worker()
            self.twins[self.workers[place]] = Twin(self.workers[place].pid)
            gevent.sleep(0)

    @rule(one=PLACE, other=PLACE)
    def link(self, one: int, other: int) -> None:
        worker, mine, peer, theirs = self.pair(one, other)
        if not mine.alive:
            return
        got = worker.do(erps.link, peer.pid)
        if mine is theirs:
            assert got is None
        elif theirs.alive:
            assert got is None
            mine.links.add(theirs)
            theirs.links.add(mine)
        elif mine.trapping:
            mine.gets(ExitSignal(peer.pid, NOPROC))
        else:
            assert got is NoProc

    @rule(one=PLACE, other=PLACE)
    def unlink(self, one: int, other: int) -> None:
        worker, mine, peer, theirs = self.pair(one, other)
        if mine.alive:
            worker.do(erps.unlink, peer.pid)
            mine.links.discard(theirs)
            theirs.links.discard(mine)

    @rule(one=PLACE, on=st.booleans())
    def trap_exit(self, one: int, on: bool) -> None:
        worker, mine, _, _ = self.pair(one, one)
        if mine.alive:
            assert worker.do(erps.trap_exit, on) is mine.trapping
            mine.trapping = on

    @rule(one=PLACE, other=PLACE, by_name=st.booleans())
    def monitor(self, one: int, other: int, by_name: bool) -> None:
        worker, mine, peer, theirs = self.pair(one, other)
        if not mine.alive:
            return
        target = theirs.name if by_name and theirs.name else peer.pid
        ref = worker.do(erps.monitor, target)
        if theirs.alive:
            theirs.monitors[ref] = mine, target
        else:
            mine.gets(Down(ref, target, NOPROC))

    @rule(one=PLACE, other=PLACE, flush=st.booleans())
    def demonitor(self, one: int, other: int, flush: bool) -> None:
        """The newest monitor of this one on that one, whether it has been answered or not."""
        worker, mine, _, theirs = self.pair(one, other)
        refs = [ref for ref, (watcher, _) in theirs.monitors.items() if watcher is mine]
        if mine.alive and refs:
            worker.do(erps.demonitor, refs[-1], flush)
            _, target = theirs.monitors.pop(refs[-1])
            if flush:
                for message in [m for m in mine.mailbox if isinstance(m, Down) and m.ref == refs[-1]]:
                    assert message.pid == target
                    del mine.mailbox[message]

    @rule(one=PLACE, other=PLACE, reason=REASONS)
    def exit_(self, one: int, other: int, reason: Any) -> None:
        worker, mine, peer, theirs = self.pair(one, other)
        if not mine.alive:
            return
        worker.begin(erps.exit_, peer.pid, reason)
        if not theirs.alive:
            return
        if reason is KILL:
            theirs.ends(KILLED)
        else:
            theirs.signal(worker.pid, reason)

    @rule(one=PLACE, reason=REASONS)
    def leave(self, one: int, reason: Any) -> None:
        """It ends by itself: with KILL as a reason, its partners may trap it."""

        def raise_() -> None:
            raise Exit(reason)

        worker, mine, _, _ = self.pair(one, one)
        if mine.alive:
            worker.begin(raise_)
            mine.ends(reason)

    @rule(one=PLACE, name=NAMES)
    def register(self, one: int, name: str) -> None:
        worker, mine, _, _ = self.pair(one, one)
        if not mine.alive:
            return
        got = worker.do(erps.register, worker.pid, name)
        if mine.name is not None:
            assert got is ConfigError
        elif any(twin.name == name for twin in self.twins.values()):
            assert got is AlreadyStarted
        else:
            assert got is None
            mine.name = name

    @rule(name=NAMES)
    def unregister(self, name: str) -> None:
        holders = [twin for twin in self.twins.values() if twin.name == name]
        if holders:
            erps.unregister(name)
            holders[0].name = None

    @invariant()
    def they_agree(self) -> None:
        self.settle()
        for worker, twin in self.twins.items():
            facts = erps.info(worker.pid)
            assert (facts is not None) is twin.alive
            if facts is not None:
                assert set(facts["links"]) == {linked.pid for linked in twin.links}
                assert facts["registered_name"] == twin.name
                assert facts["monitored_by"] == sum(watcher.alive for watcher, _ in twin.monitors.values())
                assert Counter(worker.pid.process.inbox.mailbox) == +twin.mailbox
        for name in ("model-a", "model-b"):
            holders = [twin.pid for twin in self.twins.values() if twin.name == name]
            assert [whereis(name)] == (holders or [None])

    def teardown(self) -> None:
        for worker in self.twins:
            erps.kill(worker.pid)
        for worker in self.twins:
            ended(worker.pid)


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(max_examples=400, stateful_step_count=30)
