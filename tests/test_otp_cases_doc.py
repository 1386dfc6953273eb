"""docs/otp-cases.md and docs/otp.md tell the truth: each case is there, and each test that they name."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support import ROOT

TEXT = (ROOT / "docs" / "otp-cases.md").read_text(encoding="utf-8")
GEVENT = (ROOT / "docs" / "otp.md").read_text(encoding="utf-8").partition("## Where gevent is not the BEAM")[2]
LAST = 198
GAPS = {16, 25, 31, 40, 51, 57, 70, 73, 79, 85, 88, 92, 104, 114, 120, 123, 132, 141, 148, 163, 170, 177, 189, 194}
OPTIONAL = 30


def rows(text, columns):
    """The rows of the tables with so many columns, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if len(row) == columns and row[0] not in ("#", "case", "on gevent")]


CASES = rows(TEXT, 4)
OTHERS = rows(TEXT, 3)
FACTS = rows(GEVENT, 3)
NAMED = [(number, name, where) for number, name, _, where in CASES] + [("", name, where) for name, _, where in OTHERS]


@cache
def docstrings_of(path):
    """The docstrings of the tests in a file, by name."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_each_case_is_there_once_and_in_order():
    assert [int(row[0]) for row in CASES] == [number for number in range(1, LAST + 1) if number not in GAPS]
    assert len(OTHERS) == len({row[0] for row in OTHERS}) == OPTIONAL


@pytest.mark.parametrize(("number", "name", "where"), NAMED, ids=[f"{number}{name}" for number, name, _ in NAMED])
def test_each_case_has_its_test_or_a_reason(number, name, where):
    if re.fullmatch(r"left: .{10,}", where):
        return
    path = where.strip("`")
    assert f"test_{name}" in docstrings_of(path), f"{path} has no test_{name}"
    assert re.search(rf"\b{number}\b", docstrings_of(path)[f"test_{name}"]), (
        f"test_{name} does not say that it is {number}"
    )


def test_each_fact_of_gevent_has_its_test():
    everywhere = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in docstrings_of(path.relative_to(ROOT))
    }
    assert FACTS
    for fact, _, tests in FACTS:
        named = re.findall(r"`(\w+)`", tests)
        assert named, fact
        assert set(named) <= everywhere, fact
