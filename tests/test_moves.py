"""The table of a line's states: every pair of state and event leads where it says, or is an error."""

from __future__ import annotations

from itertools import product

import pytest

from erps_gevent.moves import MOVES, Event, State

ALLOWED = {
    (State.IDLE, Event.OPEN): State.CONNECTING,
    (State.CONNECTING, Event.OPEN): State.CONNECTING,
    (State.CONNECTING, Event.READY): State.UP,
    (State.CONNECTING, Event.FAILED): State.BACKOFF,
    (State.UP, Event.OPEN): State.UP,
    (State.UP, Event.LOST): State.CONNECTING,
    (State.UP, Event.PAUSE): State.BACKOFF,
    (State.UP, Event.GOAWAY): State.MOVING,
    (State.MOVING, Event.OPEN): State.MOVING,
    (State.MOVING, Event.READY): State.UP,
    (State.MOVING, Event.FAILED): State.BACKOFF,
    (State.BACKOFF, Event.OPEN): State.CONNECTING,
    (State.BACKOFF, Event.TICK): State.CONNECTING,
    (State.DOWN, Event.OPEN): State.CONNECTING,
    **{(state, Event.DISCONNECT): State.DOWN for state in State if state is not State.CLOSED},
    **{(state, Event.CLOSE): State.CLOSED for state in State},
    (State.CLOSED, Event.DISCONNECT): State.CLOSED,
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)), ids=lambda value: value.name)
def test_every_pair_is_allowed_or_an_error(state, event):
    if (state, event) in ALLOWED:
        assert MOVES[state][event] is ALLOWED[state, event]
    else:
        with pytest.raises(KeyError):
            MOVES[state][event]
