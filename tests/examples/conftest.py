"""Examples are run as their docstrings say, in a copy of their directory, at a port that is free."""

from __future__ import annotations

import ast
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import ROOT, child_environ

PROGRAMS = {
    "python": [sys.executable],
    "erps": [sys.executable, "-m", "erps_gevent.cli"],
    "gunicorn": [sys.executable, "-m", "gunicorn"],
}
MAIN = ("server.py", "run_tests.py")  # the script whose docstring says how to run the example
DOCUMENTED_PORT = "4747"


def commands(script: Path) -> list[str]:
    """The commands that the docstring of `script` tells to run, in their order."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")), clean=False) or ""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


class Example:
    """One directory under examples/, copied to `place`. What it starts is stopped with `close`."""

    def __init__(self, name: str, place: Path, port: int, close: ExitStack) -> None:
        self.place = place / name
        shutil.copytree(
            ROOT / "examples" / name, self.place, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache", "certs")
        )
        main = next(script for script in MAIN if (self.place / script).exists())
        self.commands = commands(self.place / main)
        if main == "server.py":
            assert commands(self.place / "client.py")[0] in self.commands
        self.close = close
        for script in self.place.glob("*.py"):
            script.write_text(script.read_text(encoding="utf-8").replace(DOCUMENTED_PORT, str(port)), encoding="utf-8")

    def run(self, command: str) -> str:
        """Run a command to its end and return what it printed; it must succeed without a word on stderr."""
        process = self.start(command)
        out, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, ""), command
        return out

    def start(self, command: str) -> subprocess.Popen[str]:
        program, *words = shlex.split(command)
        process = subprocess.Popen(
            [*PROGRAMS[program], *words],
            cwd=self.place,
            env=child_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.close.callback(end, process)
        return process

    def serve(self, command: str) -> subprocess.Popen[str]:
        """Start a server, and wait until it says that it listens."""
        process = self.start(command)
        said = process.stdout.readline()
        assert " is at " in said, said + process.stderr.read()
        return process

    def stop(self, server: subprocess.Popen[str], signum: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit status of a server that is sent `signum`, and what it has written on stderr."""
        server.send_signal(signum)
        _, errors = server.communicate(timeout=30)
        return server.returncode, errors


def end(process: subprocess.Popen[str]) -> None:
    with process:
        process.kill()


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody else is given: bound, but not listened at. A server with SO_REUSEADDR can have it."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path, port: int) -> Iterator[Example]:
    """The example that the test module is named for: test_chat.py gets chat."""
    name = request.path.stem.removeprefix("test_")
    with ExitStack() as close:
        yield Example(name, tmp_path, port, close)
