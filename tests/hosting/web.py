"""examples/web in a copy: its server as a host, and what its applications answer to many requests at once."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from hosts import Host, get
from support import ROOT, run_python

EXAMPLE = ROOT / "examples" / "web"
AT_ONCE = 8
PATIENCE = 100  # rounds of requests in which each worker has had one

# The application is used as soon as it is imported: with --preload that is in the master, before it forks.
USED_AT_IMPORT = """
import os
from {module} import app, visits
assert visits.call(("visit", "import", os.getpid())) >= 1
"""


class VisitsServer(Host):
    """examples/web/server.py at a port that the kernel chooses.

    url: for the variable VISITS of the applications.
    """

    def __init__(self, *, cwd: Path, **environ: str) -> None:
        super().__init__("server.py", "0", cwd=cwd, **environ)

    def ready(self) -> None:
        (port,) = self.wait_for(r"the visits are at localhost:(\d+)")
        self.url = f"erps://localhost:{port}"

    def lines(self) -> list[tuple[int, int]]:
        """The number of each line that was used, and the process id of its worker."""
        return [(int(line), int(worker)) for line, worker in re.findall(r"line (\d+) is of worker (\d+)", self.log)]


def commands() -> list[list[str]]:
    """What the docstring of the example tells to run, in words."""
    text = ast.get_docstring(ast.parse((EXAMPLE / "server.py").read_text(encoding="utf-8")), clean=False) or ""
    return [shlex.split(line) for line in text.splitlines() if line.startswith("    ")]


def copy_example(place: Path) -> Path:
    """A copy with certificates, a module used_X for each application X, and a configuration that patches."""
    copy = place / "web"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "certs"))
    (words,) = (words for words in commands() if words[0] == "erps")
    made = run_python("-m", "erps_gevent.cli", *words[1:], cwd=copy)
    assert made.returncode == 0, made.stderr
    for module in ("flask_app", "django_app"):
        (copy / f"used_{module}.py").write_text(USED_AT_IMPORT.format(module=module), encoding="utf-8")
    config = (copy / "gunicorn.conf.py").read_text(encoding="utf-8")
    patched = config.replace("# from gevent", "from gevent").replace("# monkey.patch_all", "monkey.patch_all")
    (copy / "patched.conf.py").write_text(patched, encoding="utf-8")
    return copy


class Visitor:
    """Visits pages that nobody has visited before, and one that all visit, many at once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.numbers = count(1)
        self.shared = 0

    def visit(self, page: str) -> dict[str, Any]:
        status, text = get(f"{self.url}/{page}")
        assert status == 200, text
        answer = json.loads(text)
        assert answer["page"] == page
        return answer

    def visit_all(self, *expected: int) -> set[int]:
        """Visit until each of the workers `expected` has answered; the process ids of all that have.

        No visit may be lost or counted twice.
        """
        seen: set[int] = set()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in range(PATIENCE):
                alone = list(pool.map(self.visit, [f"page-{next(self.numbers)}" for _ in range(AT_ONCE)]))
                together = list(pool.map(self.visit, ["shared"] * AT_ONCE))
                assert [answer["visits"] for answer in alone] == [1] * AT_ONCE
                first, self.shared = self.shared + 1, self.shared + AT_ONCE
                assert sorted(answer["visits"] for answer in together) == list(range(first, self.shared + 1))
                seen |= {answer["worker"] for answer in alone + together}
                if seen >= set(expected):
                    return seen
        raise AssertionError(f"only {seen} of {expected} have answered")
