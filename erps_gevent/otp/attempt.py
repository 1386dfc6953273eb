"""Running a function of the user's that may fail without ending the process it runs in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent import GreenletExit

from erps_gevent.errors import Exit
from erps_gevent.otp.process import Process


def attempt(process: Process, function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
    """What `function(*args)` returns, and None; or None, and what it raised.

    An exit on its way into `process`, a kill and Ctrl-C are none of the function's, and pass.
    """
    try:
        return function(*args), None
    except Exit as exit_:
        if process.dying:
            raise
        return None, exit_
    except (GreenletExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  a gevent.Timeout or sys.exit() too is a failure of the function
        return None, error
