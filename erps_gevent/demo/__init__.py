"""`erps demo`: a story of calls, casts, pushes, a crash and a deployment, told while it happens.

    this process                                     the daemon, a process of its own
    Demo: certificates, clients, the steps  ──TLS──▶ serve(): a Daemon of Shop
          starts, kills and stops daemons   ─stdin─▶ its end ends the daemon: none outlives the story
          reads the port, and the tokens    ◀stdout─ that it has executed, once stopped

Each step raises if what it shows did not happen. What comes after a step stands on it, so the first that fails ends
the story.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging import getLogger
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TextIO

import gevent
from gevent.hub import get_hub

from erps_gevent.demo.story import STEP_LIMIT, Demo, Failed
from erps_gevent.errors import ConfigError


def run(args: argparse.Namespace) -> int:
    """Tell the story; 0 if every step showed what it is there to show, else 1.

    raises: ConfigError        trustme is not installed.
            KeyboardInterrupt  Ctrl-C. No process and no file is left, then as ever.
    """
    with (
        _interruptible(),
        _quiet(),
        tempfile.TemporaryDirectory(prefix="erps-demo-") as directory,
        ExitStack() as close,
    ):
        return tell(Demo(Path(directory), close), sys.stdout)


def tell(demo: Demo, out: TextIO) -> int:
    """Run the steps of `demo`, printing each with its time, and a summary; return the exit status."""
    print("erps demo: blocking calls over two-way TLS, on this machine\n", file=out)
    passed = failed = 0
    for step in demo.STEPS:
        start = monotonic()
        try:
            with gevent.Timeout(STEP_LIMIT, Failed(f"it took longer than {STEP_LIMIT:g} s")):
                sentence = step(demo)
            passed += 1
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the step has failed, and that is told
            failed = 1
            sentence = f"{type(error).__name__}: {error}"
        title = step.__name__.replace("_", " ")
        mark = "FAILED" if failed else "ok"
        _print_step(out, mark, title, monotonic() - start, sentence)
        if failed:
            break
    print(f"\n{_summary(demo, passed, failed)}", file=out, flush=True)
    return failed


def _print_step(out: TextIO, mark: str, title: str, seconds: float, sentence: str) -> None:
    colour = {"ok": "32", "FAILED": "31"}[mark] if out.isatty() and not os.environ.get("NO_COLOR") else ""
    painted = f"\033[{colour}m{mark:<6}\033[0m" if colour else f"{mark:<6}"
    first, *rest = textwrap.wrap(sentence, min(shutil.get_terminal_size((100, 24)).columns, 110) - 33) or [""]
    print(f"{painted} {title:<15} {seconds:5.2f} s  {first}", *(f"{'':32}{line}" for line in rest), sep="\n", file=out)
    out.flush()


def _summary(demo: Demo, passed: int, failed: int) -> str:
    missed = len(demo.STEPS) - passed - failed
    parts = [f"{passed} steps passed, {failed} failed" + (f", {missed} not reached" if missed else "")]
    if demo.asked:
        facts = [f"{demo.asked:,} calls, {demo.lost} lost"]
        if demo.healed is not None:
            facts.append(f"healed in {demo.healed:.2f} s")
        parts.append(", ".join(facts))
    return ": ".join(parts)


@contextmanager
def _quiet() -> Iterator[None]:
    """The story says what happens; the library's log would say it again."""
    logger = getLogger("erps_gevent")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and a polite kill end the story where it waits, so that it tidies up, and not some greenlet that runs."""
    teller, loop = gevent.getcurrent(), get_hub().loop

    def interrupt(signum: int, _: FrameType | None) -> None:
        error = KeyboardInterrupt() if signum == signal.SIGINT else SystemExit(128 + signum)
        loop.run_callback_threadsafe(teller.throw, error)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
