"""The package as installed: its metadata, its face, and that each environment of tox tests what its name says."""

from __future__ import annotations

import os
import textwrap
from importlib.metadata import Distribution, distribution, version

import pytest
from gevent import config, get_hub
from gevent.monkey import is_module_patched
from packaging.requirements import Requirement
from packaging.version import Version
from support import PACKAGE, ROOT, run_python

import erps_gevent

RUNTIME = {"gevent", "greenlet", "cbor2", "packaging"}


@pytest.fixture(scope="module")
def installed() -> Distribution:
    return distribution("erps_gevent")


@pytest.fixture(scope="module")
def requirements(installed):
    return [Requirement(line) for line in installed.requires or ()]


def test_the_version_has_one_source(installed):
    assert installed.version == erps_gevent.__version__


def test_the_changelog_knows_the_version():
    assert f"## {erps_gevent.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_public_name_is_there_once():
    names = erps_gevent.__all__
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(erps_gevent, name)] == []


def test_a_client_and_a_daemon_load_nothing_when_they_are_used():
    """The thread that loads gevent is the main one to it, and a fork meanwhile leaves the child a lock that is held."""
    program = """
        import sys, erps_gevent as erps
        before = set(sys.modules)

        class Echo(erps.Server):
            def handle_call(self, request, from_):
                return erps.Reply(request)

        with erps.Daemon(("127.0.0.1", 0), Echo, transport=erps.Tcp()) as daemon:
            with erps.Client(daemon.address, transport=erps.Tcp(), hub="thread") as client:
                client.call("heard")
        print([name for name in {*sys.modules} - before if name.startswith("erps_gevent")])
    """
    done = run_python("-c", textwrap.dedent(program))
    assert done.stdout.strip() == "[]", done.stderr


def test_it_may_be_imported_before_gevent_patches_the_program():
    program = """
        import erps_gevent as erps
        from gevent import monkey
        monkey.patch_all()

        class Echo(erps.Server):
            def handle_call(self, request, from_):
                return erps.Reply(request)

        with erps.Daemon(("127.0.0.1", 0), Echo, transport=erps.Tcp()) as daemon:
            with erps.Client(daemon.address, transport=erps.Tcp()) as client:
                print(client.call("heard"))
    """
    done = run_python("-c", textwrap.dedent(program))
    assert done.stdout.strip() == "heard", done.stderr


def test_every_module_of_the_repository_is_shipped_and_nothing_else():
    def modules(directory):
        return {str(path.relative_to(directory)) for path in directory.rglob("*.py")}

    assert modules(PACKAGE) == modules(ROOT / "erps_gevent"), "a missing __init__.py, or an old build/ to remove?"


@pytest.mark.parametrize(
    "directory", sorted({path.parent for path in PACKAGE.rglob("*.py")}), ids=lambda path: path.name
)
def test_every_directory_of_modules_is_a_package(directory):
    assert (directory / "__init__.py").exists()


def test_the_package_says_it_is_typed():
    assert (PACKAGE / "py.typed").exists()


def test_four_packages_are_needed_at_run_time_and_no_more(requirements):
    assert {one.name for one in requirements if one.marker is None} == RUNTIME


def test_the_extras_are_demo_gunicorn_hosting_test_and_testing(installed):
    assert set(installed.metadata.get_all("Provides-Extra")) == {"demo", "gunicorn", "hosting", "test", "testing"}


def test_the_command_is_installed(installed):
    (command,) = installed.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("erps", "erps_gevent.cli:main")


def test_the_plugin_of_pytest_is_installed(installed):
    (plugin,) = installed.entry_points.select(group="pytest11")
    assert (plugin.name, plugin.value) == ("erps_gevent", "erps_gevent.testing")


def test_the_worker_of_gunicorn_is_installed(installed):
    (worker,) = installed.entry_points.select(group="gunicorn.workers")
    assert (worker.name, worker.value) == ("erps", "erps_gevent.integrations.gunicorn:ErpsWorker")


def test_importing_the_package_patches_nothing():
    program = "import erps_gevent, gevent.monkey as m; print(sorted(m.saved))"
    assert run_python("-c", program).stdout.strip() == "[]"


def test_importing_the_package_starts_neither_hub_nor_thread():
    program = (
        "import erps_gevent, threading; from gevent._hub_local import get_hub_if_exists as hub;"
        "print(hub(), threading.active_count())"
    )
    assert run_python("-c", program).stdout.strip() == "None 1"


@pytest.mark.parametrize("module", ["socket", "ssl", "threading", "select", "subprocess"])
def test_modules_are_patched_exactly_where_the_environment_says_so(module):
    assert is_module_patched(module) == bool(os.environ.get("ERPS_TEST_PATCHED"))


def test_the_loop_is_the_one_the_environment_names():
    wanted = os.environ.get("ERPS_TEST_LOOP")
    if wanted is None:
        pytest.skip("no loop is asked for here; the libuv environment does")
    assert wanted in type(get_hub().loop).__module__, config.loop


@pytest.mark.parametrize("name", sorted(RUNTIME))
def test_the_lowest_environment_has_the_declared_lower_bounds(requirements, name):
    if not os.environ.get("ERPS_TEST_LOWEST"):
        pytest.skip("this environment has the newest versions; mindeps has the lowest")
    (requirement,) = [one for one in requirements if one.name == name and one.marker is None]
    (bound,) = requirement.specifier
    assert bound.operator == ">="
    assert Version(version(name)) == Version(bound.version)
