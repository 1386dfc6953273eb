"""Real hosts, such as gunicorn, as processes: started, waited for by what they log, signalled, and always ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from support import child_environ

READY_LIMIT = 30.0  # seconds in which a host says what is awaited; one that works takes about one
END_LIMIT = 20.0  # seconds in which it is gone after a signal


class Host:
    """One process in a process group of its own, and every line that it, and what it starts, writes.

    arguments: for this Python: `"-m", "gunicorn", "app:app"`.
    cwd:       where it runs.
    environ:   variables on top of this process's.
    """

    def __init__(self, *arguments: str | Path, cwd: Path, **environ: str) -> None:
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=child_environ(**environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        """Until the last process that holds the other end of the pipe is gone."""
        assert self.process.stdout is not None
        with self.process.stdout as pipe:
            for line in pipe:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def ready(self) -> None:
        """Wait until it can be used."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """All that was written so far."""
        return "".join(self._lines)

    def wait_for(self, pattern: str, count: int = 1, within: float = READY_LIMIT) -> list[str]:
        """Wait until `pattern` was logged `count` times; what it, or its group, found each time.

        raises: AssertionError  it was not in time, or all processes have ended before.
        """
        with self._news:
            self._news.wait_for(lambda: self._ended or len(re.findall(pattern, self.log)) >= count, within)
        found = re.findall(pattern, self.log)
        assert len(found) >= count, f"{pattern!r} is {len(found)} times in the log, not {count}, after {within} s"
        return found

    def send(self, signum: int) -> None:
        """Send it to the host itself, not to what it has started."""
        self.process.send_signal(signum)

    def end(self, within: float = END_LIMIT) -> int:
        """Wait until it and all it has started are gone: the log is complete. Its exit status.

        raises: subprocess.TimeoutExpired  it is not gone in time.
                AssertionError  it is, but has left others behind.
        """
        status = self.process.wait(within)
        self._reader.join(within)
        assert not self._reader.is_alive(), f"{self.process.args} has ended and left processes behind"
        return status

    def stop(self, signum: int = signal.SIGTERM, within: float = END_LIMIT) -> int:
        """Send `signum`, and `end`."""
        self.send(signum)
        return self.end(within)

    def kill(self) -> None:
        """End whatever is left of the group; idempotent."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(END_LIMIT)


class Gunicorn(Host):
    """gunicorn at a port that the kernel chooses.

    url: "http://127.0.0.1:40123", once it listens.
    """

    def __init__(self, *arguments: str | Path, cwd: Path, **environ: str) -> None:
        super().__init__("-m", "gunicorn", "--bind", "127.0.0.1:0", *arguments, cwd=cwd, **environ)

    def ready(self) -> None:
        self.url = self.wait_for(r"Listening at: (http\S+)")[0]

    def workers(self, count: int) -> list[int]:
        """The process ids of the first `count` workers that were started, the dead ones among them."""
        return [int(pid) for pid in self.wait_for(r"Booting worker with pid: (\d+)", count)]


def get(url: str, timeout: float = 20.0) -> tuple[int, str]:
    """GET it: the status and the text, also of an error."""
    try:
        with urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
