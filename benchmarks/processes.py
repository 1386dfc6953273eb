"""The processes of a race: for every entry a server and a driver, each with a Python of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import Case, Entry
from packets import wire_sizes

import erps_gevent

HERE = Path(__file__).parent
OURS = str(Path(erps_gevent.__file__).parent.parent)  # the contestants have the package that this process has
_cores = sorted(os.sched_getaffinity(0))
# Half of the cores for each side. Where the scheduler puts both ends of a line on one core, which it does and undoes as
# it likes, they never work at the same time, and ratios are of one placement to another.
CORES = {"serve": _cores[: len(_cores) // 2] or _cores, "drive": _cores[len(_cores) // 2 :]}
PATIENCE = 180.0  # seconds for one answer; ten thousand lines are opened within it


class Failed(Exception):
    """A contestant could not do it; the text is what its process said last."""


class Side:
    """A process that answers a line of JSON with a line of JSON."""

    def __init__(self, python: str, module: str, role: str, plan: dict[str, Any], path: str = "") -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by end()
        self.process = subprocess.Popen(
            [python, "-m", f"contestants.{module}", role, json.dumps(plan)],
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        os.sched_setaffinity(self.process.pid, CORES[role])

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """raises: Failed"""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self.last_words()) from None
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """raises: Failed"""
        assert self.process.stdout
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if readable else ""
        if not line:
            raise Failed(self.last_words() if readable else f"no answer within {PATIENCE:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def last_words(self) -> str:
        self.process.wait(PATIENCE)
        self._errors.seek(0)
        said = [line for line in self._errors.read().splitlines() if line.strip()]
        return said[-1] if said else f"exit status {self.process.returncode}"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._errors.close()


class Team:
    """One entry's server and driver, and what they measured."""

    def __init__(self, case: Case, entry: Entry, python: str, more: dict[str, Any]) -> None:
        self.entry, self.python, self.fresh = entry, python, case.fresh
        self.rounds: list[dict[str, float]] = []
        self.failure = ""
        self.versions: dict[str, str] = {}
        self._plan = {**more, **case.plan_of(entry)}
        if self._plan.get("tls"):
            self._plan["tls"] = more["certificates"]
        self._sides: list[Side] = []

    def start(self) -> None:
        """raises: Failed"""
        plan = dict(self._plan)
        if self.entry.served:
            if not self.entry.peer:
                plan["wire"] = wire_sizes(plan)
            server = self._side("serve", plan)
            plan |= {"port": server.hear()["port"], "server_pid": server.process.pid}
        self._driver = self._side("drive", plan)
        self.versions = self._driver.hear()["versions"]

    def _side(self, role: str, plan: dict[str, Any]) -> Side:
        side = Side(self.python, self.entry.module, role, plan, "" if self.entry.peer else OURS)
        self._sides.append(side)
        return side

    def run(self, seconds: float) -> None:
        """One round, unless an earlier one failed."""
        if self.failure:
            return
        try:
            if not self._sides:
                self.start()
            self.rounds.append(self._driver.ask({"seconds": seconds}))
        except Failed as failed:
            self.failure = str(failed)
        if self.fresh:
            self.end()

    @property
    def server_pid(self) -> int:
        return self._sides[0].process.pid

    @property
    def driver_pid(self) -> int:
        return self._driver.process.pid

    def end(self) -> None:
        while self._sides:
            self._sides.pop().end()


def race(teams: Sequence[Team], rounds: int, seconds: float) -> None:
    """Round by round, A B C A B C."""
    try:
        for _ in range(rounds):
            for team in teams:
                team.run(seconds)
    finally:
        for team in teams:
            team.end()
