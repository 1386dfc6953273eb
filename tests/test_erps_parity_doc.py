"""docs/erps-parity.md: each behaviour of Erps has a row, each row an answer, and each answer a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support import ROOT

ROW = re.compile(r"^\| (F?\d+) \|(.*)\|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
PENDING = re.compile(r"pending: \w+")
ANSWERS = ("same", "fixed: ", "different: ")

ROWS = ROW.findall((ROOT / "docs" / "erps-parity.md").read_text())
CELLS = {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in ROWS}


@cache
def named_in(path):
    """The tests of a file: `test_it`, `TestThem::test_it`."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names |= {prefix + item.name for item in inner if isinstance(item, ast.FunctionDef)}
    return {name for name in names if name.rpartition("::")[2].startswith("test_")}


def test_there_is_one_row_for_each_fault_and_each_behaviour():
    assert [name for name, _ in ROWS] == [f"F{n}" for n in range(1, 13)] + [str(n) for n in range(1, 143)]


@pytest.mark.parametrize("name", CELLS)
def test_a_row_has_a_behaviour_an_answer_and_a_test(name):
    assert len(CELLS[name]) == 3
    behaviour, answer, shown = CELLS[name]
    assert behaviour
    assert answer.startswith(ANSWERS), answer
    assert not name.startswith("F") or answer.startswith("fixed: ")
    left = PENDING.sub("", TEST.sub("", shown)).replace("<br>", "").strip()
    assert (left, bool(TEST.search(shown) or PENDING.search(shown))) == ("", True), shown


def test_a_difference_has_a_reason():
    without = {
        name: answer
        for name, (_, answer, _) in CELLS.items()
        if answer.startswith("different") and not re.search(r"\b(because|so that)\b", answer)
    }
    assert without == {}


@pytest.mark.parametrize("name", CELLS)
def test_the_tests_of_a_row_exist(name):
    for path, test in TEST.findall(CELLS[name][2]):
        assert test in named_in(path), f"{path} has no {test}"
