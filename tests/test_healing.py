"""Who is told what while a line is made, lost, moved and closed; and that it heals."""

from __future__ import annotations

import logging
from time import monotonic

import gevent
import pytest
from ends import Scripted, client_end, in_time, soon, turn
from faces import PATIENCE, until
from gevent.event import Event as Flag
from support import MS

from erps_gevent import healing
from erps_gevent.backoff import Backoff
from erps_gevent.errors import CallTimeout, Disconnected, ServerExit, VersionMismatch
from erps_gevent.healing import Healer, State
from erps_gevent.outbox import HIGH_WATER
from erps_gevent.wire.packet import Type
from erps_gevent.wire.refusals import Code, Refusal

REFUSED = Disconnected("refused", reason="refused")
LONG = 3600.0  # seconds: a delay that no test waits for


class World:
    """A healer, what its attempts come to, and what it tells."""

    def __init__(self, **options) -> None:
        self.outcomes: list[object] = []  # of the next attempts: an error, a flag to wait for, or nothing for a line
        self.attempts = 0
        self.servers: list[Scripted] = []
        self.lines: list[object] = []
        self.connected: list[object] = []
        self.told: list[Exception] = []
        self.extra = ()
        options = {"reconnect": 60.0, "heal": True, **options}
        self.healer = Healer("Lab", self.dial, self.connected.append, self.told.append, **options)

    def dial(self, healer):
        self.attempts += 1
        while self.outcomes:
            outcome = self.outcomes.pop(0)
            if isinstance(outcome, Flag):
                outcome.wait()
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                break
        line, server, _ = client_end()
        line.on_goaway = healer.moving
        self.lines.append(line)
        self.servers.append(server)
        greeting = gevent.spawn(line.greet, soon())
        try:
            server.hear(Type.HELLO)
            server.say(server.session.welcome(None, 100), *(make(server.session) for make in self.extra))
            greeting.get()
        except BaseException:
            # The healer was closed meanwhile, perhaps by the end of a test, whose own closing may strike here again.
            line.drop()
            greeting.kill()
            raise
        return line

    def up(self) -> Scripted:
        """Open it and wait for the line; its server."""
        self.healer.open()
        self.healer.usable(soon(), wait=True)
        return self.servers[-1]

    def answered(self) -> None:
        """A call over the line, answered."""
        server = self.servers[-1]
        caller = gevent.spawn(self.healer.line.call, "go", None, None)
        packet = server.hear(Type.CALL)
        server.say(server.session.reply(packet.ref, "done"))
        assert caller.get(timeout=PATIENCE) == "done"

    def lose(self) -> None:
        self.servers[-1].stream.close()

    def waits(self, *, wait=False, timeout=PATIENCE):
        waiter = gevent.spawn(self.healer.usable, monotonic() + timeout, wait)
        turn(2)
        return waiter

    def close(self) -> None:
        self.healer.close()
        for server in self.servers:
            server.stream.close()
        with in_time():
            self.healer.join(PATIENCE)
        turn(2)
        assert not self.healer._running, "a greenlet is left"
        assert not self.healer._waiting
        assert not self.healer._leaving
        assert [line for line in self.lines if line.stream.fileno() != -1] == [], "a descriptor is left"


@pytest.fixture
def worlds():
    made = []

    def make(**options):
        made.append(World(**options))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(worlds):
    return worlds()


@pytest.fixture
def healer(world):
    return world.healer


@pytest.fixture
def delays(monkeypatch):
    """The errors that delays were asked for; each is as long as `delays.seconds`."""

    class Delays(list):
        seconds = LONG

    asked = Delays()

    def delay(self, error):
        asked.append(error)
        return asked.seconds

    monkeypatch.setattr(Backoff, "delay", delay)
    return asked


# The first connection.


def test_nothing_happens_before_it_is_opened(world, healer):
    turn(3)
    assert (healer.state, world.attempts) == (State.IDLE, 0)


def test_opening_dials_once_however_often_it_is_asked(world, healer):
    for _ in range(3):
        healer.open()
    assert healer.usable(soon(), wait=False) is healer.line
    assert world.attempts == 1
    assert world.connected == [healer.line]
    healer.open()
    turn(3)
    assert (healer.state, world.attempts) == (State.UP, 1)


def test_a_call_during_the_first_attempt_waits_for_it(world, healer):
    flag = Flag()
    world.outcomes = [flag]
    healer.open()
    waiters = [world.waits() for _ in range(3)]
    flag.set()
    assert {waiter.get(timeout=PATIENCE) for waiter in waiters} == {healer.line}


def test_when_the_attempt_fails_every_waiter_fails_at_once_with_its_cause(world, healer, delays):
    flag = Flag()
    world.outcomes = [flag, REFUSED]
    healer.open()
    waiters = [world.waits() for _ in range(3)]
    patient = world.waits(wait=True)
    flag.set()
    for waiter in waiters:
        with pytest.raises(Disconnected, match="no line to Lab: refused") as caught:
            waiter.get(timeout=PATIENCE)
        assert caught.value.sent is False
        assert caught.value.__cause__ is REFUSED
    assert not patient.dead
    healer.open()
    assert patient.get(timeout=PATIENCE) is healer.line


def test_a_waiter_whose_time_is_over_first_has_a_timeout(world, healer):
    world.outcomes = [Flag()]
    healer.open()
    with pytest.raises(CallTimeout, match="connecting") as caught:
        world.waits(timeout=5 * MS).get(timeout=PATIENCE)
    assert caught.value.sent is False


def test_no_time_at_all_is_over_at_once(world, healer):
    world.outcomes = [Flag()]
    healer.open()
    with pytest.raises(CallTimeout), in_time(0.5):
        healer.usable(0.0, wait=True)


def test_a_killed_waiter_is_forgotten(world, healer):
    world.outcomes = [Flag()]
    healer.open()
    world.waits().kill()
    assert not healer._waiting


def test_an_unforeseen_error_of_an_attempt_leaves_nobody_waiting(world, healer, delays, caplog):
    world.outcomes = [Flag(), ZeroDivisionError("a bug")]
    flag = world.outcomes[0]
    healer.open()
    waiter = world.waits()
    flag.set()
    with pytest.raises(Disconnected, match="a bug"):
        waiter.get(timeout=PATIENCE)
    assert healer.state is State.BACKOFF
    assert "Traceback" in caplog.text


# Backing off.


def test_a_call_while_backing_off_fails_at_once_unless_it_wants_to_wait(world, healer, delays):
    world.outcomes = [REFUSED]
    healer.open()
    until(lambda: healer.state is State.BACKOFF)
    with pytest.raises(Disconnected) as caught, in_time(0.5):
        healer.usable(soon(), wait=False)
    assert caught.value.__cause__ is REFUSED
    with pytest.raises(CallTimeout, match="backoff") as timed_out:
        healer.usable(monotonic() + 5 * MS, wait=True)
    assert timed_out.value.__cause__ is REFUSED


def test_opening_during_a_back_off_tries_now(world, healer, delays):
    world.outcomes = [REFUSED]
    healer.open()
    until(lambda: healer.state is State.BACKOFF)
    healer.open()
    healer.open()
    assert healer.state is State.CONNECTING
    assert healer.usable(soon(), wait=False) is healer.line
    assert world.attempts == 2


def test_opening_while_the_failure_is_being_logged_tries_now_too(world, healer, delays, monkeypatch):
    """A handler of the log may park, and anything may happen meanwhile."""
    world.outcomes = [REFUSED]

    def warning(*_, **__):
        healer.open()

    monkeypatch.setattr(healing.logger, "warning", warning)
    healer.open()
    healer.usable(soon(), wait=True)
    assert world.attempts == 2


def test_the_back_off_ends_by_itself(world, healer, delays):
    delays.seconds = 2 * MS
    world.outcomes = [REFUSED, REFUSED, REFUSED]
    healer.open()
    healer.usable(soon(), wait=True)
    assert delays == [REFUSED] * 3
    assert healer.counts == {"connects": 1, "failed_attempts": 3, "lost": 0, "moves": 0}


def test_a_cause_is_told_once_and_a_new_one_again(world, healer, delays, caplog):
    delays.seconds = 1 * MS
    expired = Disconnected("expired", reason="certificate_expired")
    world.outcomes = [REFUSED, REFUSED, expired, expired, REFUSED, VersionMismatch("old"), VersionMismatch("old")]
    healer.open()
    healer.usable(soon(), wait=True)
    assert [str(error) for error in world.told] == ["refused", "expired", "refused", "old"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["Lab: refused", "Lab: expired", "Lab: refused", "Lab: old"]


def test_after_a_connection_the_same_cause_is_news_again(world, healer, delays):
    delays.seconds = 1 * MS
    world.outcomes = [REFUSED]
    world.up()
    world.outcomes = [REFUSED]
    world.lose()
    until(lambda: healer.counts["connects"] == 2)
    assert [error.reason for error in world.told] == ["refused", "closed", "refused"]


# A lost line.


def test_a_lost_line_is_dialled_again_at_once(world, healer, delays):
    world.up()
    world.answered()
    world.lose()
    until(lambda: healer.counts["connects"] == 2)
    assert delays == []
    assert [error.reason for error in world.told] == ["closed"]
    assert healer.counts["lost"] == 1
    assert healer.cause is None


def test_a_call_right_after_the_loss_waits_for_the_new_line(world, healer):
    world.up()
    old = healer.line
    world.outcomes = [Flag()]
    flag = world.outcomes[0]
    world.lose()
    until(lambda: healer.line is None)
    waiter = world.waits()
    flag.set()
    assert waiter.get(timeout=PATIENCE) is not old


def test_a_line_whose_write_failed_is_not_handed_out(world, healer):
    world.up()
    old = healer.line
    old.outbox.close(Disconnected("the write failed"))
    old._write_failed(Disconnected("the write failed"))
    assert healer.usable(soon(), wait=False) is not old


def test_a_peer_that_accepts_and_closes_is_not_dialled_in_a_hot_loop(world, healer, delays):
    world.up()
    world.lose()
    until(lambda: healer.counts["connects"] == 2)  # the first time at once
    world.lose()
    until(lambda: healer.state is State.BACKOFF)
    assert len(delays) == 1
    with pytest.raises(Disconnected):
        healer.usable(soon(), wait=False)
    assert [error.reason for error in world.told] == ["closed", "closed"]


def test_the_back_off_grows_until_a_line_has_answered(world, healer, monkeypatch):
    resets = []
    monkeypatch.setattr(Backoff, "reset", lambda self: resets.append(1))
    monkeypatch.setattr(Backoff, "delay", lambda self, error: 1 * MS)
    world.up()
    for lines in (2, 3, 4):
        world.lose()
        until(lambda lines=lines: len(world.servers) == lines and healer.state is State.UP)
    assert resets == []
    world.answered()
    world.lose()
    until(lambda: len(world.servers) == 5)
    assert resets == [1]


def test_a_server_that_ends_is_told_as_what_it_said(world, healer):
    server = world.up()
    server.say(server.session.refusal(None, Refusal(Code.EXIT, "KeyError", "'sku'")))
    server.stream.close()
    until(lambda: world.told)
    assert isinstance(world.told[0], ServerExit)


def test_a_full_line_makes_its_callers_wait_for_room(world, healer):
    server = world.up()
    healer.line.cast(bytes(4 * HIGH_WATER))
    waiter = world.waits()
    assert not waiter.dead
    server.hear(Type.CAST)
    assert waiter.get(timeout=PATIENCE) is healer.line


def test_a_caller_that_waits_for_room_on_a_line_that_is_lost_gets_the_next_one(world, healer):
    world.up()
    old = healer.line
    old.cast(bytes(4 * HIGH_WATER))
    waiter = world.waits()
    world.lose()
    assert waiter.get(timeout=PATIENCE) is not old


# Without healing.


def test_without_healing_a_failed_attempt_is_final(worlds):
    world = worlds(heal=False)
    flag = Flag()
    world.outcomes = [flag, REFUSED]
    world.healer.open()
    waiters = [world.waits(), world.waits(wait=True)]
    flag.set()
    for waiter in waiters:
        with pytest.raises(Disconnected, match="heal=False: refused") as caught:
            waiter.get(timeout=PATIENCE)
        assert caught.value.__cause__ is REFUSED
    assert world.healer.state is State.CLOSED
    assert world.told == [REFUSED]
    with pytest.raises(Disconnected):
        world.healer.open()


def test_without_healing_a_lost_line_is_final(worlds):
    world = worlds(heal=False)
    world.up()
    world.lose()
    until(lambda: world.healer.state is State.CLOSED)
    assert [error.reason for error in world.told] == ["closed"]
    assert world.attempts == 1


# A move.


def test_a_goaway_moves_to_a_new_line_and_the_old_one_takes_its_last_replies(world, healer, delays):
    server = world.up()
    caller = gevent.spawn(healer.line.call, "slow", None, None)
    server.hear(Type.CALL)
    old = healer.line
    server.say(server.session.goaway())
    until(lambda: healer.counts["connects"] == 2)
    assert healer.usable(soon(), wait=False) is not old
    server.say(server.session.reply(1, "at last"))
    assert caller.get(timeout=PATIENCE) == "at last"
    server.hear(Type.BYE)
    assert server.hears_the_end()
    assert healer.counts == {"connects": 2, "failed_attempts": 0, "lost": 0, "moves": 1}
    assert world.told == []
    assert delays == []


def test_callers_wait_during_a_move(world, healer):
    server = world.up()
    flag = Flag()
    world.outcomes = [flag]
    server.say(server.session.goaway())
    until(lambda: healer.state is State.MOVING)
    waiter = world.waits()
    flag.set()
    assert waiter.get(timeout=PATIENCE) is healer.line


def test_a_move_whose_first_attempts_fail_fails_nobody(world, healer, delays):
    delays.seconds = 1 * MS
    server = world.up()
    world.answered()
    world.outcomes = [REFUSED] * 4
    server.say(server.session.goaway())
    until(lambda: healer.state is State.MOVING)
    waiter = world.waits()
    assert waiter.get(timeout=PATIENCE) is healer.line
    assert delays == [REFUSED] * 4
    assert world.told == []


def test_a_move_that_fails_for_too_long_fails_its_callers(world, healer, delays, monkeypatch):
    monkeypatch.setattr(healing, "MOVE_FOR", 0.0)
    server = world.up()
    world.answered()
    flag = Flag()
    world.outcomes = [flag, REFUSED]
    server.say(server.session.goaway())
    until(lambda: healer.state is State.MOVING)
    waiter = world.waits()
    flag.set()
    with pytest.raises(Disconnected):
        waiter.get(timeout=PATIENCE)
    assert healer.state is State.BACKOFF
    assert world.told == [REFUSED]


def test_a_move_to_what_lasts_does_not_wait(world, healer, delays):
    server = world.up()
    world.outcomes = [VersionMismatch("too old")]
    server.say(server.session.goaway())
    until(lambda: healer.state is State.BACKOFF)
    assert isinstance(world.told[0], VersionMismatch)


def test_opening_during_a_move_ends_its_pause(world, healer, delays):
    server = world.up()
    world.answered()
    world.outcomes = [REFUSED]
    server.say(server.session.goaway())
    until(lambda: delays)
    healer.open()
    assert healer.usable(soon(), wait=False) is healer.line


def test_a_second_goaway_right_after_the_move_is_no_hot_loop(world, healer, delays):
    world.extra = (lambda session: session.goaway(),)
    healer.open()
    until(lambda: delays)
    turn(10)
    # The first goaway is followed at once, the second after a pause.
    assert world.attempts == 2
    assert healer.state is State.MOVING
    world.extra = ()
    healer.open()
    assert healer.usable(soon(), wait=False) is healer.line
    until(lambda: not healer._leaving)


def test_a_goaway_of_a_line_that_was_left_already_is_nothing(world, healer):
    server = world.up()
    caller = gevent.spawn(healer.line.call, "slow", None, None)
    server.hear(Type.CALL)
    server.say(server.session.goaway())
    until(lambda: healer.counts["connects"] == 2)
    server.say(server.session.goaway(), server.session.reply(1, "done"))
    assert caller.get(timeout=PATIENCE) == "done"
    assert healer.counts["moves"] == 1
    assert healer.state is State.UP


def test_an_old_line_that_is_lost_while_it_is_left_is_no_loss(world, healer):
    server = world.up()
    caller = gevent.spawn(healer.line.call, "slow", None, None)
    server.hear(Type.CALL)
    server.say(server.session.goaway())
    until(lambda: healer.counts["connects"] == 2)
    server.stream.close()
    with pytest.raises(Disconnected) as caught:
        caller.get(timeout=PATIENCE)
    assert caught.value.sent is True
    assert healer.counts["lost"] == 0
    assert world.told == []


# Going down.


def test_disconnect_says_bye_and_stays_down_until_it_is_opened(world, healer):
    server = world.up()
    healer.disconnect()
    server.hear(Type.BYE)
    for wait in (True, False):
        with pytest.raises(Disconnected, match=r"connect\(\) ends this") as caught:
            healer.usable(soon(), wait=wait)
        assert caught.value.sent is False
    turn(3)
    assert world.attempts == 1
    healer.open()
    assert healer.usable(soon(), wait=False) is healer.line
    assert world.told == []


@pytest.mark.parametrize("state", ["IDLE", "CONNECTING", "UP", "MOVING", "BACKOFF", "DOWN", "CLOSED"])
@pytest.mark.parametrize("how", ["disconnect", "close"])
def test_going_down_works_from_every_state_and_twice_and_at_once(world, healer, delays, state, how):
    into(world, State[state])
    waiters = [world.waits(wait=wait) for wait in (True, False)]
    many = [gevent.spawn(getattr(healer, how)) for _ in range(3)]
    gevent.joinall(many, timeout=PATIENCE, raise_error=True)
    getattr(healer, how)()
    expected = State.CLOSED if how == "close" or state == "CLOSED" else State.DOWN
    assert healer.state is expected
    assert healer.line is None
    gevent.joinall(waiters, timeout=PATIENCE)
    assert all(waiter.dead for waiter in waiters)
    if state not in ("UP", "CLOSED", "DOWN"):
        assert all(isinstance(waiter.exception, Disconnected) for waiter in waiters)
    turn(3)
    for server in world.servers:
        server.stream.close()
    with in_time():
        healer.join(PATIENCE)
    assert not healer._running


def into(world, state):
    """Bring a healer from IDLE into `state`."""
    healer = world.healer
    if state is State.IDLE:
        return
    if state in (State.CONNECTING, State.BACKOFF):
        world.outcomes = [Flag() if state is State.CONNECTING else REFUSED]
        healer.open()
    elif state is State.MOVING:
        server = world.up()
        world.outcomes = [Flag()]
        server.say(server.session.goaway())
    else:
        world.up()
        if state is not State.UP:
            getattr(healer, "close" if state is State.CLOSED else "disconnect")()
    until(lambda: healer.state is state)
    turn()


def test_closing_is_final_and_its_first_word_stands(world, healer):
    world.up()
    healer.close("closed: enough")
    healer.disconnect()
    healer.close("closed again")
    assert healer.state is State.CLOSED
    with pytest.raises(Disconnected, match="closed: enough"):
        healer.usable(soon(), wait=True)
    with pytest.raises(Disconnected, match="closed: enough"):
        healer.open()


@pytest.mark.parametrize("how", ["disconnect", "close"])
@pytest.mark.parametrize("outcome", ["a line", "an error"])
def test_going_down_in_the_turn_in_which_the_attempt_ends(world, healer, how, outcome):
    flag, line = Flag(), None
    dial = world.dial

    def late(healer):
        nonlocal line
        line = dial(healer)
        flag.wait()
        if outcome == "an error":
            line.drop()
            raise REFUSED
        return line

    healer._dial = late
    healer.open()
    until(lambda: line is not None)
    turn(2)
    # The flag wakes the dialling greenlet before the kill can reach it.
    flag.set()
    getattr(healer, how)()
    until(lambda: not healer._running)
    assert healer.state is (State.CLOSED if how == "close" else State.DOWN)
    assert healer.line is None
    assert world.connected == []
    assert world.told == []
    assert line.stream.fileno() == -1


def test_going_down_and_up_again_in_one_turn(world, healer):
    world.outcomes = [Flag()]
    healer.open()
    turn(2)
    for _ in range(3):
        healer.disconnect()
        healer.open()
    assert healer.usable(soon(), wait=False) is healer.line
    turn(2)
    assert len(healer._running) == 1
    assert healer.counts["connects"] == 1


def test_going_down_during_a_back_off_ends_it(world, healer, delays):
    world.outcomes = [REFUSED]
    healer.open()
    until(lambda: healer.state is State.BACKOFF)
    patient = world.waits(wait=True)
    healer.disconnect()
    with pytest.raises(Disconnected, match="connect"):
        patient.get(timeout=PATIENCE)
    until(lambda: not healer._running)


def test_going_down_while_a_line_is_left_ends_that_line_too(world, healer):
    server = world.up()
    caller = gevent.spawn(healer.line.call, "slow", None, None)
    server.hear(Type.CALL)
    server.say(server.session.goaway())
    until(lambda: healer.counts["connects"] == 2)
    healer.close()
    with pytest.raises(Disconnected) as caught:
        caller.get(timeout=PATIENCE)
    assert caught.value.sent is True
    server.hear(Type.BYE)
    world.servers[-1].hear(Type.BYE)


def test_going_down_while_the_loss_is_being_logged(world, healer, monkeypatch):
    monkeypatch.setattr(healing.logger, "warning", lambda *_, **__: healer.disconnect())
    world.up()
    world.lose()
    until(lambda: healer.state is State.DOWN)
    until(lambda: not healer._running)
    assert world.attempts == 1
