"""A supervisor under random crashes, kills, failing inits and requests, against a plain model of rules 12 of OTP.

The model knows an ordered dict of children and a list of times. What a supervisor sends itself to start a child again
is held back until the machine lets it through, so that anything may come in between. After each step both must agree
on who was started and stopped in which order, which pids are new, who is restarting, and whether the supervisor lives.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from otp.kernel import ended
from otp.trees import end, spec

from erps_gevent.errors import AlreadyStarted, ErrorReply, NotFound, StartError
from erps_gevent.otp import supervising
from erps_gevent.otp.gen import stop
from erps_gevent.otp.primitives import kill
from erps_gevent.otp.reasons import is_quiet
from erps_gevent.otp.supervising import Again
from erps_gevent.otp.supervisor import Supervisor
from erps_gevent.otp.words import KILL, NOPROC, NORMAL, RESTARTING, SHUTDOWN

KINDS: dict[str, dict[str, Any]] = {
    "a": {"restart": "permanent"},
    "b": {"restart": "transient"},
    "c": {"restart": "temporary"},
    "d": {"restart": "permanent", "backoff": (0.1, 1.0)},
    "e": {"restart": "transient", "shutdown": "brutal_kill"},
}
NAMES = st.sampled_from(sorted(KINDS))
REASONS = st.sampled_from([NORMAL, SHUTDOWN, "crash", KILL])
STRATEGIES = st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"])
WINDOW = 5.0
GIVING_UP = 2.0  # seconds that it may take, so few that a failing example can be made small before the run is ended


class Twin:
    """What the model knows of one child."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.restart = KINDS[name]["restart"]
        self.pauses = "backoff" in KINDS[name]
        self.brutal = "shutdown" in KINDS[name]
        self.state: Any = None  # "running", RESTARTING or None
        self.dead = False  # but the supervisor has not yet heard of it
        self.starts = 0
        self.token: object = None  # of the message that will start it again


class Model:
    """Rules 12, in plain Python."""

    def __init__(self, strategy: str, allowed: int) -> None:
        self.strategy = strategy
        self.allowed = allowed
        self.now = 0.0
        self.times: list[float] = []
        self.twins: dict[str, Twin] = {}
        self.failing: set[str] = set()
        self.log: list[Any] = []
        self.held: list[tuple[Twin, object, bool]] = []  # with whether it is counted
        self.over = False

    def start(self, twin: Twin) -> bool:
        if twin.name in self.failing:
            return False
        self.log.append(("start", twin.name))
        twin.state, twin.dead, twin.token = "running", False, None
        twin.starts += 1
        return True

    def stop(self, twin: Twin) -> None:
        if twin.state == "running" and not twin.dead and not twin.brutal:
            self.log.append(("stop", twin.name, SHUTDOWN))
        twin.state = twin.token = None
        if twin.restart == "temporary":
            del self.twins[twin.name]

    def stop_all(self) -> None:
        for twin in reversed(list(self.twins.values())):
            self.stop(twin)
        self.over = True

    def died(self, twin: Twin, reason: Any) -> None:
        if twin.restart == "permanent" or (twin.restart == "transient" and not is_quiet(reason)):
            self.again(twin)
        else:
            twin.dead = True
            self.stop(twin)

    def again(self, twin: Twin) -> None:
        self.times = [time for time in [*self.times, self.now] if self.now - time <= WINDOW]
        twin.state = None
        if len(self.times) > self.allowed:
            self.stop_all()
        elif twin.pauses:
            self.clear(twin)
            self.hold(twin, counted=True)
        else:
            self.revive(twin)

    def clear(self, twin: Twin) -> list[Twin]:
        twins = list(self.twins.values())
        first = {"one_for_all": 0, "rest_for_one": twins.index(twin), "one_for_one": twins.index(twin)}[self.strategy]
        group = [twin] if self.strategy == "one_for_one" else twins[first:]
        for each in reversed(group):
            self.stop(each)
        return [each for each in group if each.name in self.twins]

    def revive(self, twin: Twin) -> None:
        for each in self.clear(twin):
            if not self.start(each):
                self.hold(each, counted=False)
                return

    def hold(self, twin: Twin, *, counted: bool) -> None:
        twin.state, twin.token = RESTARTING, object()
        self.held.append((twin, twin.token, counted))

    def let_through(self, name: str) -> None:
        held = next(held for held in self.held if held[0].name == name)
        self.held.remove(held)
        twin, token, counted = held
        if twin.token is token:
            twin.token = None
            if counted:
                self.revive(twin)
            else:
                self.again(twin)


class Tree(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        self.patches.enter_context(patch.object(supervising, "monotonic", lambda: self.model.now))
        self.patches.enter_context(patch.object(supervising, "send_after", self.send_after))
        self.patches.enter_context(patch.object(supervising.logger, "disabled", True))
        self.deliver = Again.deliver
        self.patches.enter_context(patch.object(Again, "deliver", lambda event, server: self.hold(event, server)))

    @initialize(strategy=STRATEGIES, allowed=st.integers(0, 4))
    def begin(self, strategy: str, allowed: int) -> None:
        self.log: list[Any] = []
        self.held: list[Any] = []
        self.passing: Any = None
        self.pids: dict[tuple[str, int], Any] = {}
        self.model = Model(strategy, allowed)
        for name in KINDS:
            self.model.twins[name] = Twin(name)
            self.model.start(self.model.twins[name])
        children = [self.spec(name) for name in KINDS]
        self.supervisor = Supervisor.start_link(children, strategy=strategy, max_restarts=allowed, max_seconds=WINDOW)

    def spec(self, name: str) -> dict[str, Any]:
        def begin() -> None:
            if name in self.model.failing:
                raise RuntimeError("init")

        return spec(name, self.log, begin, **KINDS[name])

    # What the supervisor sends itself.

    def send_after(self, _pid: Any, message: Any, _seconds: float) -> Any:
        self.held.append(message)
        return self

    def stop(self) -> None:
        """As a timer; the message that it holds is out of date from then on, and can be let through all the same."""

    def hold(self, event: Again, server: Any) -> Any:
        if event is self.passing:
            return self.deliver(event, server)
        self.held.append(event)
        return None

    # Steps.

    def running(self, name: str) -> Twin | None:
        twin = self.model.twins.get(name)
        return twin if twin and twin.state == "running" else None

    def pid(self, twin: Twin) -> Any:
        return self.pids[twin.name, twin.starts]

    def outcome(self, function: Any, *args: Any) -> Any:
        try:
            function(self.supervisor, *args)
        except ErrorReply as error:
            return error.kind
        except (AlreadyStarted, NotFound, StartError) as error:
            return type(error)
        return "ok"

    lives = precondition(lambda self: not self.model.over)

    @lives
    @rule(name=NAMES, reason=REASONS)
    def ends(self, name: str, reason: Any) -> None:
        twin = self.running(name)
        if twin is None:
            return
        if reason is not KILL:
            self.model.log.append(("stop", name, reason))
        end(self.pid(twin), reason)
        self.model.died(twin, reason)

    @lives
    @rule(names=st.lists(NAMES, min_size=2, max_size=3, unique=True))
    def killed_together(self, names: list[str]) -> None:
        twins = [twin for twin in map(self.running, names) if twin]
        pids = [self.pid(twin) for twin in twins]
        started = [twin.starts for twin in twins]
        for pid in pids:
            kill(pid)
        for pid in pids:
            ended(pid)
        for twin in twins:
            twin.dead = True
        for twin, starts in zip(twins, started, strict=True):
            # Who was found dead, and perhaps started again, with another's group is not heard of again.
            if not self.model.over and twin.starts == starts and twin.state == "running":
                self.model.died(twin, KILL)

    @lives
    @rule(name=NAMES)
    def starts_again(self, name: str) -> None:
        """The oldest of this child: messages of different children may overtake each other on their way here."""
        held = next((event for event in self.held if event.child.id == name), None)
        if held is None:
            return
        self.held.remove(held)
        self.passing = held
        self.supervisor.send(held)
        self.model.let_through(name)

    @lives
    @rule(name=NAMES)
    def fails_from_now_on(self, name: str) -> None:
        self.model.failing.add(name)

    @lives
    @rule(name=NAMES)
    def fails_no_more(self, name: str) -> None:
        self.model.failing.discard(name)

    @lives
    @rule(seconds=st.sampled_from([1.0, WINDOW + 0.1]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    @lives
    @rule(name=NAMES)
    def terminate_child(self, name: str) -> None:
        twin = self.model.twins.get(name)
        assert self.outcome(Supervisor.terminate_child, name) == ("ok" if twin else NotFound)
        if twin:
            self.model.stop(twin)

    @lives
    @rule(name=NAMES)
    def restart_child(self, name: str) -> None:
        got = self.outcome(Supervisor.restart_child, name)
        assert got == self.idle(name, lambda twin: "ok" if self.model.start(twin) else StartError)

    @lives
    @rule(name=NAMES)
    def delete_child(self, name: str) -> None:
        got = self.outcome(Supervisor.delete_child, name)
        assert got == self.idle(name, lambda twin: self.model.twins.pop(name) and "ok")

    def idle(self, name: str, then: Any) -> Any:
        twin = self.model.twins.get(name)
        if twin is None:
            return NotFound
        if twin.state is not None:
            return "restarting" if twin.state is RESTARTING else "running"
        return then(twin)

    @lives
    @rule(name=NAMES)
    def start_child(self, name: str) -> None:
        got = self.outcome(Supervisor.start_child, self.spec(name))
        if present := self.model.twins.get(name):
            assert got == (AlreadyStarted if present.state == "running" else "already_present")
            return
        twin = Twin(name)
        twin.starts = max((starts for known, starts in self.pids if known == name), default=0)
        self.model.twins[name] = twin
        if self.model.start(twin):
            assert got == "ok"
        else:
            assert got == StartError
            del self.model.twins[name]

    @precondition(lambda self: self.model.over)
    @rule(strategy=STRATEGIES, allowed=st.integers(0, 4))
    def another_tree(self, strategy: str, allowed: int) -> None:
        self.begin(strategy, allowed)

    # Both agree.

    @invariant()
    def they_agree(self) -> None:
        if self.model.over:
            assert self.supervisor.process.join(GIVING_UP) in (SHUTDOWN, NOPROC)
            assert self.log == self.model.log
            return
        real = Supervisor.which_children(self.supervisor)
        twins = list(self.model.twins.values())
        assert [name for name, *_ in real] == [twin.name for twin in twins]
        for twin, (_, pid, _, _) in zip(twins, real, strict=True):
            if twin.state != "running":
                assert pid is twin.state
                continue
            assert pid.is_alive()
            if (twin.name, twin.starts) not in self.pids:
                assert pid not in self.pids.values()
            assert self.pids.setdefault((twin.name, twin.starts), pid) is pid
        active = sum(twin.state == "running" for twin in twins)
        counts = {"specs": len(twins), "active": active, "supervisors": 0, "workers": len(twins)}
        assert Supervisor.count_children(self.supervisor) == counts
        assert self.log == self.model.log
        assert sorted(event.child.id for event in self.held) == sorted(twin.name for twin, *_ in self.model.held)

    def teardown(self) -> None:
        with self.patches:
            if self.model.over:
                return
            self.model.stop_all()
            stop(self.supervisor, SHUTDOWN)
        assert self.log == self.model.log


TestSupervisor = Tree.TestCase
TestSupervisor.settings = settings(max_examples=100, stateful_step_count=40)
