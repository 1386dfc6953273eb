"""README keeps its promises: its code runs, its errors are all of them, its commands and links are there."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys

import pytest
from support import ROOT, child_environ, run_python

from erps_gevent import certs, errors

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path):
    """A directory with the certificates that README's programs name."""
    certs.make(tmp_path / "certs", ["localhost,127.0.0.1"], ["alice", "bob"])
    return tmp_path


@pytest.fixture
def port(place):
    """The port of README's server, running in a process of its own."""
    program = blocks("python")[0]
    program = program.replace('("0.0.0.0", 4747)', '("127.0.0.1", 0)')
    program = program.replace("    daemon.serve_forever()", "    print(daemon.server_port)\n    daemon.serve_forever()")
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=place, env=child_environ(), stdout=subprocess.PIPE, text=True) as daemon:
        yield int(daemon.stdout.readline())
        daemon.terminate()


def test_the_counter_counts_and_pushes(place, port):
    program = blocks("python")[1]
    program = program.replace("4747", str(port)) + "print(counter.add(4), flush=True)\ncounter.close()\n"
    done = run_python("-c", program, cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7" in done.stdout.splitlines()


def test_the_tree_starts_its_children_in_order(place):
    server, _, tree = blocks("python")
    tree = tree.replace('("0.0.0.0", 4747)', '("127.0.0.1", 0)').replace("Tree.start_link", "tree = Tree.start_link")
    tree += "print([id for id, *_ in erps.Supervisor.which_children(tree)])\nerps.stop(tree)\n"
    done = run_python("-c", server.partition("with erps.Daemon")[0] + tree, cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    clients, servers, (daemon, listener) = ast.literal_eval(re.sub(r"<class '[\w.]+'>", "'Daemon'", done.stdout))
    assert (clients, servers, daemon, listener) == ("clients", "servers", "Daemon", ("127.0.0.1", 0))


def test_every_error_is_drawn():
    tree = README.partition("Every error is one of these:")[2].partition("## ")[0]
    named = set(re.findall(r"\b[A-Z]\w+", tree))
    public = {name for name, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__}
    assert {name for name in public if not name.startswith("_")} - named == set()


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_a_link_into_the_repository_leads_somewhere(target):
    assert (ROOT / target).exists()


def test_the_first_screen_has_two_commands_of_one_line():
    demo, tests = blocks("sh")[:2]
    assert demo.count("\n") == tests.count("\n") == 1
    assert demo.rstrip().endswith("erps demo")
    assert tests.rstrip().endswith("tox run-parallel")


def test_ci_runs_the_second_command():
    marker = "<!-- the test command -->\n```sh\n"
    assert README.count(marker) == 1
    assert README.partition(marker)[2].partition("```")[0] == blocks("sh")[1]
    assert "<!-- the test command -->" in (ROOT / ".ci/run").read_text(encoding="utf-8")
