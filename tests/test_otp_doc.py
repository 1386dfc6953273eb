"""docs/otp.md keeps its promises: its example prints what it says, and what it names is there."""

from __future__ import annotations

import ast
import re

import pytest
from support import ROOT, run_python

import erps_gevent

TEXT = (ROOT / "docs" / "otp.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_first_example_prints_what_it_says():
    done = run_python("-c", PROGRAMS[0])
    assert done.stderr == ""
    assert done.stdout.splitlines() == re.findall(r"# (.*)", PROGRAMS[0])


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_is_python_and_what_it_takes_from_the_package_is_there(program):
    ast.parse(program)
    assert [name for name in re.findall(r"\berps\.(\w+)", program) if not hasattr(erps_gevent, name)] == []


@pytest.mark.parametrize(
    "owner", ["sys", "universe", "Supervisor", "DynamicSupervisor", "Registry", "Task", "Task.Supervisor"]
)
def test_what_the_text_names_of_a_module_or_a_class_is_there(owner):
    thing = erps_gevent
    for part in owner.split("."):
        thing = getattr(thing, part)
    named = set(re.findall(rf"`(?:erps\.)?(?<![\w.]){re.escape(owner)}\.(\w+)", TEXT))
    assert named
    assert {name for name in named if not hasattr(thing, name)} == set()


def test_the_functions_of_the_table_are_public():
    table = TEXT.partition("| to | call |")[2].partition("\n\n")[0]
    second = [row.split("|")[2] for row in table.splitlines()[2:] if row.count("|") > 2]
    named = {name for cell in second for name in re.findall(r"`(\w+)[`(]", cell)}
    assert len(named) > 15
    assert {name for name in named if name not in erps_gevent.__all__} == set()
