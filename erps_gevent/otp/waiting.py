"""Parking a greenlet until something happens, or until time is up."""

from __future__ import annotations

from typing import Any

from gevent.hub import Waiter

TIMED_OUT = object()  # what `answer` returns when the time is up

# libuv counts in milliseconds and warns below one.
SHORTEST = 0.001


def answer(waiter: Waiter[Any], seconds: float | None) -> Any:
    """Park until `waiter` is switched, and return what with, or TIMED_OUT after `seconds`; None waits for ever.

    raises: what is thrown into the waiter, and LoopExit in the main greenlet if nothing is left that could wake it.
    """
    if seconds is None:
        return waiter.get()
    if seconds <= 0:
        return TIMED_OUT
    timer = waiter.hub.loop.timer(max(seconds, SHORTEST))
    timer.start(waiter.switch, TIMED_OUT)
    try:
        return waiter.get()
    finally:
        timer.close()
