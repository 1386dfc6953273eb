"""Shared fixtures: certificates for both ends, an impostor's, and the rule that endurance tests run only when asked."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces import HUBS, KINDS, House, wire
from hypothesis import settings
from support import Certs, issue

from erps_gevent.otp import bridge

# A shared machine makes any deadline per example a false alarm; in CI the same examples every time, so that a red
# run can be repeated.
settings.register_profile("erps", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("erps")

LEAVING_LIMIT = 60.0  # seconds for the interpreter to end after the last test: a thread that nobody ended blocks it
STRESS = Path(__file__).parent / "stress"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave tests/stress out unless the command line names it."""
    named = any("stress" in argument for argument in config.invocation_params.args)
    return True if collection_path == STRESS and not named else None


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> None:
    """Keep what came before, pytest's own reports above all, out of the garbage collections that end tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def late_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread waits longer to hear from another hub that its time is up: on a crowded machine the word comes late."""
    monkeypatch.setattr(bridge, "GRACE", 2.0)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Let a run that cannot leave fail with the stack of every thread; the limit per test is over by now."""
    faulthandler.dump_traceback_later(LEAVING_LIMIT, exit=True, file=sys.__stderr__)


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    """One authority with: server (localhost, 127.0.0.1, ::1), elsewhere (another host), alice and bob (clients)."""
    people = {
        "server": ("localhost", "127.0.0.1", "::1"),
        "elsewhere": ("elsewhere.example",),
        "alice": ("alice", "localhost", "127.0.0.1", "::1"),
        "bob": ("bob",),
    }
    return issue(tmp_path_factory.mktemp("certs"), people)


@pytest.fixture(scope="session")
def impostor_certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    """Another authority that nobody trusts, with the same names in its certificates."""
    people = {"server": ("localhost", "127.0.0.1", "::1"), "alice": ("alice",)}
    return issue(tmp_path_factory.mktemp("impostor"), people)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """What both ends speak: TCP, two-way TLS 1.2, two-way TLS 1.3."""
    return str(request.param)


@pytest.fixture(params=HUBS)
def hub(request: pytest.FixtureRequest) -> str:
    """Where a client's socket lives."""
    return str(request.param)


@pytest.fixture
def house(kind: str, certs: Certs) -> Iterator[House]:
    """Daemons and clients over each kind of line."""
    made = House(wire(kind, certs))
    yield made
    made.close()


@pytest.fixture
def plain_house(certs: Certs) -> Iterator[House]:
    """Daemons and clients over TCP, for what does not depend on the line."""
    made = House(wire("tcp", certs))
    yield made
    made.close()
