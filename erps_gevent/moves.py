"""The states of one client's line, and what moves it from one to another.

    IDLE ──OPEN──▶ CONNECTING ──READY──▶ UP ──LOST──▶ CONNECTING      at once, the first time
                    │      ▲              │
                  FAILED  TICK            └──GOAWAY──▶ MOVING ──READY──▶ UP
                    ▼      │                             └──FAILED──▶ BACKOFF
                    BACKOFF

A line that ended before it was of use, and was not the first such, leads from UP to BACKOFF (PAUSE) instead.
disconnect() leads to DOWN from anywhere, and connect() out of it; close() leads to CLOSED, which is final.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    IDLE = auto()
    CONNECTING = auto()
    UP = auto()
    MOVING = auto()
    BACKOFF = auto()
    DOWN = auto()
    CLOSED = auto()


class Event(Enum):
    OPEN = auto()
    READY = auto()
    FAILED = auto()
    LOST = auto()
    PAUSE = auto()
    GOAWAY = auto()
    TICK = auto()
    DISCONNECT = auto()
    CLOSE = auto()


_OUT = {Event.DISCONNECT: State.DOWN, Event.CLOSE: State.CLOSED}

MOVES: dict[State, dict[Event, State]] = {
    State.IDLE: {Event.OPEN: State.CONNECTING, **_OUT},
    State.CONNECTING: {Event.READY: State.UP, Event.FAILED: State.BACKOFF, Event.OPEN: State.CONNECTING, **_OUT},
    State.UP: {
        Event.LOST: State.CONNECTING,
        Event.PAUSE: State.BACKOFF,
        Event.GOAWAY: State.MOVING,
        Event.OPEN: State.UP,
        **_OUT,
    },
    State.MOVING: {Event.READY: State.UP, Event.FAILED: State.BACKOFF, Event.OPEN: State.MOVING, **_OUT},
    State.BACKOFF: {Event.TICK: State.CONNECTING, Event.OPEN: State.CONNECTING, **_OUT},
    State.DOWN: {Event.OPEN: State.CONNECTING, **_OUT},
    State.CLOSED: {Event.CLOSE: State.CLOSED, Event.DISCONNECT: State.CLOSED},
}
