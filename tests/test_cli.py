"""The `erps` command, as a person runs it."""

from __future__ import annotations

import ssl
import sys
import types

import pytest
from support import run_python

from erps_gevent import cli
from erps_gevent.errors import ConfigError
from erps_gevent.integrations import serve


def erps(*args, cwd=None):
    return run_python("-m", "erps_gevent.cli", *args, cwd=cwd)


def test_certs_writes_files_that_both_ends_can_load(tmp_path):
    done = erps("certs", "dev", "--server", "localhost,127.0.0.1", "--client", "alice", "bob", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "dev").iterdir()} == {
        *("ca.pem", "localhost.pem", "localhost.key", "alice.pem", "alice.key", "bob.pem", "bob.key"),
    }
    for name in ("localhost", "alice", "bob"):
        context = ssl.create_default_context(cafile=tmp_path / "dev/ca.pem")
        context.load_cert_chain(tmp_path / f"dev/{name}.pem", tmp_path / f"dev/{name}.key")


def test_certs_says_what_to_write_next(tmp_path):
    done = erps("certs", "dev", "--server", "localhost", "--client", "alice", cwd=tmp_path)
    assert "erps.Tls(ca='dev/ca.pem', cert='dev/localhost.pem', key='dev/localhost.key')" in done.stdout
    assert "erps.Tls(ca='dev/ca.pem', cert='dev/alice.pem', key='dev/alice.key')" in done.stdout


def test_certs_does_not_overwrite_unless_forced(tmp_path):
    command = ("certs", "dev", "--client", "alice")
    assert erps(*command, cwd=tmp_path).returncode == 0
    before = (tmp_path / "dev/ca.pem").read_bytes()
    refused = erps(*command, cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("erps: dev/ca.pem, dev/alice.pem, dev/alice.key already there")
    assert "Traceback" not in refused.stderr
    assert (tmp_path / "dev/ca.pem").read_bytes() == before
    assert erps(*command, "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "dev/ca.pem").read_bytes() != before


def test_certs_for_nobody_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["certs", "dev"])
    assert caught.value.code == 2
    assert "--server NAME or --client NAME" in capsys.readouterr().err


def test_names_may_be_given_in_several_options(tmp_path, capsys):
    assert cli.main(["certs", str(tmp_path), "--client", "alice", "--client", "bob"]) == 0
    assert (tmp_path / "alice.pem").exists()
    assert (tmp_path / "bob.pem").exists()


def test_no_verb_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 2


@pytest.mark.parametrize("words", [["--help"], ["certs", "--help"], ["demo", "--help"], ["--version"]])
def test_help_and_version_are_answered(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 0
    assert "erps" in capsys.readouterr().out


@pytest.fixture
def demo(monkeypatch):
    """A stand-in for the demo, whose `run` the test sets."""
    module = types.ModuleType("erps_gevent.demo")
    monkeypatch.setitem(sys.modules, "erps_gevent.demo", module)
    return module


@pytest.mark.parametrize("status", [0, 1])
def test_the_demos_status_is_the_commands(demo, status):
    demo.run = lambda args: status
    assert cli.main(["demo"]) == status


def test_an_error_of_the_library_is_one_line_and_status_1(demo, capsys):
    def run(args):
        raise ConfigError("no trustme")

    demo.run = run
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == "erps: no trustme\n"


def test_an_interrupted_command_ends_quietly(demo, capsys):
    def run(args):
        raise KeyboardInterrupt

    demo.run = run
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == ""


def test_a_package_that_is_not_installed_has_no_version_but_runs(monkeypatch, capsys):
    def missing(name):
        raise cli.PackageNotFoundError(name)

    monkeypatch.setattr(cli, "version", missing)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert "not installed" in capsys.readouterr().out


def test_serve_hands_over_what_it_was_asked_for(monkeypatch, tmp_path):
    asked = []

    def run(settings):
        asked.append(settings)
        return 0

    monkeypatch.setattr(serve, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", "app:Echo", "--bind", "a:1", "--bind", "b:2", "--tcp", "--drain-time", "5"]) == 0
    assert asked == [serve.Settings("app:Echo", ["a:1", "b:2"], tcp=True, drain_time=5.0)]
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize("words", [["app:Echo"], ["app:Echo", "--bind", "a:1", "--delay", "-1"]])
def test_serve_without_an_address_or_with_a_time_that_is_none_is_a_usage_error(words):
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve", *words])
    assert caught.value.code == 2


def test_an_application_that_is_not_there_is_one_line_and_status_1(capsys):
    assert cli.main(["serve", "nowhere_at_all:App", "--bind", "127.0.0.1:0", "--tcp"]) == 1
    assert capsys.readouterr().err.startswith("erps: there is no module 'nowhere_at_all'")
