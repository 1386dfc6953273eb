"""Real hosts: gunicorn, Flask, Django, Celery, pytest-xdist. Where one is missing the modules here are skipped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hosts import Host

NEEDED = {"gunicorn": "gunicorn", "flask": "flask", "django": "django", "celery": "celery", "xdist": "pytest-xdist"}
MISSING = [name for module, name in NEEDED.items() if find_spec(module) is None]


class Unhosted(pytest.Module):
    """A module of tests that is not imported, as what it would host is not installed."""

    def collect(self) -> Any:
        text = f"no {', '.join(MISSING)} here; the extra has them: pip install 'erps_gevent[hosting]'"
        pytest.skip(text, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return Unhosted.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start a host in `tmp_path`, and wait until it is ready: `start(Gunicorn, "app:app")`.

    At the end of the test what is left of them is killed, the newest first, and a test that failed shows their logs.
    """
    hosts: list[Host] = []

    def begin(make: type[Host], *arguments: str | Path, cwd: Path = tmp_path, **environ: str) -> Any:
        # gunicorn puts its control socket there, which is to have a short path and not to be another gunicorn's.
        host = make(*arguments, cwd=cwd, **{"XDG_RUNTIME_DIR": runtime, **environ})
        hosts.append(host)
        host.ready()
        return host

    with TemporaryDirectory() as runtime:
        yield begin
        for host in reversed(hosts):
            host.kill()
            print(f"--- {host.process.args}\n{host.log}")
