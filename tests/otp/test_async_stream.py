"""Streams of tasks: order, how many at once, time, ending early, and that nothing is left over."""

from __future__ import annotations

import gc
import os

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Log, as_process, ended, idle, spawn
from support import MS, run_python

from erps_gevent.errors import ConfigError, Exit, TaskTimeout
from erps_gevent.otp.job import TaskExit, TaskResult
from erps_gevent.otp.mailbox import receive
from erps_gevent.otp.primitives import trap_exit
from erps_gevent.otp.process import current
from erps_gevent.otp.task import Task
from erps_gevent.otp.words import KILLED, NORMAL, TIMEOUT

stream = Task.async_stream


class Works:
    """A function for a stream: each element runs until it is let go, and returns itself."""

    def __init__(self):
        self.began = Log()
        self.pids = {}
        self.gates = {}

    def __call__(self, element):
        self.pids[element] = current().pid
        self.began.append(element)
        self.gate(element).wait()
        return element

    def gate(self, element):
        return self.gates.setdefault(element, Event())

    def let_go(self, *elements):
        """One after the other."""
        for element in elements:
            self.gate(element).set()
            if element in self.pids:
                ended(self.pids[element])


@pytest.fixture
def works():
    made = Works()
    yield made
    for gate in made.gates.values():
        gate.set()


def fail(reason):
    raise Exit(reason)


def left(process):
    """What a stream could leave with its owner: links, monitors of tasks, its own monitor, messages."""
    # The test, which waits for this process, is the one who monitors it.
    return process.links, process.monitoring, len(process.monitors) - 1, list(process.inbox.mailbox)


NOTHING = ({}, {}, 0, [])


def results(*values):
    return [TaskResult(value) for value in values]


# Case 181, ET async_stream/2.


@pytest.mark.parametrize("max_concurrency", [1, 2, 4, 8])
def test_async_stream(max_concurrency):
    """Case 181, ET async_stream "streams an enumerable with fun" for ==, <, > tasks: the order of the elements."""

    def owner(process):
        return list(stream(range(4), lambda element: element * 2, max_concurrency=max_concurrency)), left(process)

    assert as_process(owner) == (results(0, 2, 4, 6), NOTHING)


def test_an_empty_stream_has_no_outcomes():
    assert list(stream([], fail)) == []


def test_outcomes_come_in_order_whatever_the_order_of_the_ends(works):
    """Case 181, ET "streams an enumerable with slowest first"."""
    outcomes = stream([4, 3, 2, 1], works, max_concurrency=4)
    gevent.spawn(lambda: (works.began.wait_for(1), works.let_go(1, 2, 3, 4)))
    assert list(outcomes) == results(4, 3, 2, 1)


def test_outcomes_come_as_they_are_if_not_ordered(works):
    """Case 181, ET "streams an enumerable with ordered: false"."""
    outcomes = stream([4, 3, 2, 1], works, max_concurrency=4, ordered=False)
    gevent.spawn(lambda: (works.began.wait_for(1), works.let_go(1, 2, 3, 4)))
    assert list(outcomes) == results(1, 2, 3, 4)


@pytest.mark.parametrize("ordered", [True, False])
def test_no_more_run_at_once_than_may(works, ordered):
    """Case 181: max_concurrency."""
    outcomes = stream(range(5), works, max_concurrency=2, ordered=ordered)
    reader = gevent.spawn(list, outcomes)
    works.began.wait_for(1)
    for number in range(2, 5):
        assert len(works.began) == number
        works.let_go(number - 2)
        works.began.wait_for(number)
    works.let_go(3, 4)
    assert reader.get(timeout=PATIENCE) == results(0, 1, 2, 3, 4)


def test_what_waits_behind_a_slow_one_makes_room_for_others(works):
    """As in Elixir: an outcome that is kept for the order does not count as running."""
    reader = gevent.spawn(list, stream(range(4), works, max_concurrency=2))
    works.began.wait_for(1)
    works.let_go(1)
    works.began.wait_for(2)
    works.let_go(2)
    works.began.wait_for(3)
    works.let_go(3, 0)
    assert reader.get(timeout=PATIENCE) == results(0, 1, 2, 3)


def test_as_many_run_at_once_as_there_are_processors(works):
    cores = os.cpu_count()
    reader = gevent.spawn(list, stream(range(cores + 1), works))
    works.began.wait_for(cores - 1)
    assert len(works.began) == cores
    works.let_go(*range(cores + 1))
    assert len(reader.get(timeout=PATIENCE)) == cores + 1


def test_elements_are_taken_one_by_one_and_not_before_they_are_asked_for():
    taken = []
    outcomes = stream((taken.append(n) or n for n in range(10**9)), str, max_concurrency=2)
    assert taken == []
    assert next(outcomes) == TaskResult("0")
    assert next(outcomes) == TaskResult("1")
    assert len(taken) <= 4
    outcomes.close()


def test_an_outcome_does_not_wait_for_the_next_element(works):
    """Elements may come from a queue; one that is ready is given first."""
    source = gevent.queue.Queue()
    for element in (0, 1):
        source.put(element)
        works.let_go(element)
    outcomes = stream(source, works, max_concurrency=2)
    assert [next(outcomes), next(outcomes)] == results(0, 1)
    outcomes.close()


# Failing.


def test_a_crash_ends_an_owner_that_does_not_trap_exits(works):
    """Case 181: and the owner's end ends the other tasks."""
    seen = []
    owner = spawn(lambda _: [seen.append(one) for one in stream([works, "because"], _works_or_fails)])
    assert ended(owner) == "because"
    assert seen == []
    ended(works.pids[0])


def _works_or_fails(element):
    return element(0) if callable(element) else fail(element)


def test_a_crash_is_an_outcome_for_an_owner_that_traps_exits():
    """Case 181, ET "streams an enumerable with exits": and it has no messages of that."""

    def owner(process):
        return list(stream(["1", NORMAL, "3"], fail, max_concurrency=2)), left(process)

    exits = [TaskExit("1"), TaskExit(NORMAL), TaskExit("3")]
    assert as_process(owner, trap=True) == (exits, NOTHING)
    assert as_process(lambda _: list(stream([NORMAL], fail))) == [TaskExit(NORMAL)]


def test_a_crash_is_an_outcome_for_a_greenlet_that_is_no_process():
    assert list(stream(["1", "2"], fail)) == [TaskExit("1"), TaskExit("2")]


def test_what_the_elements_raise_is_raised_and_ends_the_tasks(works):
    def elements():
        yield 0
        raise LookupError("no more")

    def owner(process):
        with pytest.raises(LookupError, match="no more"):
            next(stream(elements(), works, max_concurrency=2))
        gevent.sleep(0)
        return left(process)

    assert as_process(owner) == NOTHING
    assert works.began == []


# Time.


def test_a_task_that_takes_too_long_ends_the_stream(works):
    """Case 181, ET async_stream "timeout": no message is left."""

    def owner(process):
        outcomes = stream([0, 1], works, max_concurrency=2, timeout=2 * MS)
        with pytest.raises(TaskTimeout) as caught:
            next(outcomes)
        for pid in works.pids.values():
            ended(pid)
        return str(caught.value), list(outcomes), left(process)

    text, *rest = as_process(owner)
    assert "did not finish with 0 in 0.002 s; the stream has ended. on_timeout='kill_task' ends only that" in text
    assert rest == [[], NOTHING]


@pytest.mark.parametrize(("ordered", "expected"), [(True, [0, 1, 2]), (False, [1, 2, 0])])
def test_a_task_that_takes_too_long_is_killed_if_so_asked(works, ordered, expected):
    """Case 181, ET "streams an enumerable with ordered: false, on_timeout: :kill_task"."""
    works.gate(1).set()
    works.gate(2).set()
    options = {"timeout": 50 * MS, "on_timeout": "kill_task", "ordered": ordered, "max_concurrency": 3}

    def owner(process):
        return list(stream([0, 1, 2], works, **options)), left(process)

    outcomes = [TaskExit(TIMEOUT) if element == 0 else TaskResult(element) for element in expected]
    assert as_process(owner) == (outcomes, NOTHING)
    assert as_process(owner, trap=True) == (outcomes, NOTHING)
    assert not works.pids[0].is_alive()


def test_time_passes_while_nobody_asks_for_the_outcome(works):
    """A task does not get longer because its owner is elsewhere."""
    works.gate(0).set()
    outcomes = stream([0, 1], works, max_concurrency=2, timeout=2 * MS, on_timeout="kill_task")
    assert next(outcomes) == TaskResult(0)
    ended(works.pids[1])
    works.gate(1).set()
    assert next(outcomes) == TaskExit(TIMEOUT)


@pytest.mark.parametrize("timeout", [None, 0.0, 5])
def test_any_time_that_may_be_given(timeout):
    """ET "streams an enumerable with infinite timeout"; 0 is legal, as for a call."""
    outcomes = stream([1], lambda _: Event().wait() if timeout == 0 else 1, timeout=timeout, on_timeout="kill_task")
    assert list(outcomes) == [TaskExit(TIMEOUT) if timeout == 0 else TaskResult(1)]


# Ending early.


@pytest.mark.parametrize("how", ["close", "drop", "fail"])
@pytest.mark.parametrize("trap", [True, False])
def test_halting_early_stops_the_rest(works, how, trap):
    """Case 181, ET "shuts down unused tasks", "... without leaking messages"."""

    def halt(outcomes):
        if how == "close":
            outcomes.close()
        elif how == "fail":
            with pytest.raises(LookupError):
                outcomes.throw(LookupError)

    def owner(process):
        works.gate(0).set()
        outcomes = stream(range(4), works, max_concurrency=4, timeout=None)
        first = next(outcomes)
        works.began.wait_for(3)
        reasons = []
        for element in (1, 2, 3):
            works.pids[element].process.monitor(reasons.append)
        halt(outcomes)
        del outcomes
        for element in (1, 2, 3):
            ended(works.pids[element])
        return first, reasons, left(process)

    assert as_process(owner, trap=trap) == (TaskResult(0), [KILLED] * 3, NOTHING)


def test_a_stream_that_never_began_has_nothing_to_end(works):
    stream(range(4), works).close()
    assert works.began == []


@pytest.mark.parametrize("reason", ["because", KILLED])
def test_the_end_of_the_owner_ends_the_tasks(works, reason):
    """Elixir's stream has a monitor process for that."""

    def main(process):
        works.gate(0).set()
        kept.append(stream(range(2), works, max_concurrency=2))
        next(kept[0])
        works.began.wait_for(1)
        idle(process)

    kept = []
    owner = spawn(main)
    works.began.wait_for(1)
    owner.die(reason)
    assert ended(works.pids[1]) in (KILLED, reason)


def test_the_normal_end_of_the_owner_ends_the_tasks_too(works):
    """A link alone would not, and the iterator may be kept elsewhere."""
    kept = []

    def main(_process):
        works.gate(0).set()
        kept.append(stream(range(2), works, max_concurrency=2))
        next(kept[0])
        works.began.wait_for(1)

    ended(spawn(main))
    assert ended(works.pids[1]) is KILLED


def test_a_task_that_traps_exits_is_ended_as_well():
    ready = Event()

    def stubborn(_element):
        trap_exit()
        ready.set()
        receive()

    def owner(process):
        outcomes = stream([0, 1], lambda element: element or stubborn(element), max_concurrency=2, ordered=False)
        assert next(outcomes) == TaskResult(1)
        ready.wait()
        outcomes.close()
        return len(process.links)

    assert as_process(owner) == 0


def test_a_stream_belongs_to_who_asked_first(works):
    works.gate(0).set()
    outcomes = stream(range(3), works, max_concurrency=1)
    assert next(outcomes) == TaskResult(0)

    def stranger(process):
        with pytest.raises(ConfigError) as caught:
            next(outcomes)
        return str(caught.value), process.pid

    text, pid = as_process(stranger)
    assert text.startswith("the stream of Works belongs to <Pid")
    assert text.endswith(f"which began it, not to {pid!r}")


def test_streams_may_be_read_in_turns():
    """ET "is zippable on success", "with inner halt on success"."""
    one, two = stream(range(4), str, max_concurrency=2), stream(range(3), str, max_concurrency=2)
    assert [a == b for a, b in zip(one, two, strict=False)] == [True] * 3


# Bad options.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_concurrency": 0}, "max_concurrency is a whole number of at least 1, not 0"),
        ({"max_concurrency": 1.5}, "max_concurrency is a whole number of at least 1, not 1.5"),
        ({"timeout": -1}, "timeout is a number of at least 0 or None for ever, not -1"),
        ({"ordered": "no"}, "ordered is True or False, not 'no'"),
        ({"on_timeout": "kill"}, "on_timeout is one of 'exit', 'kill_task', not 'kill'"),
    ],
)
def test_a_bad_option_is_refused_at_the_call(options, text):
    with pytest.raises(ConfigError) as caught:
        stream([1], str, **options)
    assert str(caught.value) == text


def test_a_stream_needs_a_function_and_something_to_iterate():
    with pytest.raises(TypeError, match="a task runs a function, not 'str'"):
        stream([1], "str")
    with pytest.raises(TypeError, match="not iterable"):
        stream(7, str)


def test_a_thousand_elements_leave_nothing():
    def owner(process):
        total = sum(outcome.value for outcome in stream(range(1000), int, max_concurrency=50))
        return total, left(process)

    gevent.sleep(0)
    gc.collect()
    before = sum(isinstance(thing, gevent.Greenlet) for thing in gc.get_objects())
    assert as_process(owner) == (499_500, NOTHING)
    gevent.sleep(0)
    gc.collect()
    assert sum(isinstance(thing, gevent.Greenlet) for thing in gc.get_objects()) == before


DEAD_END = """
import erps_gevent as erps
from gevent.event import Event
never = Event()
try:
    list(erps.Task.async_stream("ab", lambda _: never.wait(), timeout=None))
except erps.CallExit as error:
    print(error.reason, error)
"""


def test_a_stream_that_nothing_can_end_says_which_task_it_waits_for():
    said = run_python("-c", DEAD_END)
    assert said.stdout.startswith("deadlock <Task "), said.stderr
    assert "<lambda> of 'a'> will never answer" in said.stdout
