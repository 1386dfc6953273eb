"""docs/drop-in.md: each place where a client runs has its row, and each test that a row names is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support import ROOT, run_python

from erps_gevent import certs

TEXT = (ROOT / "docs" / "drop-in.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
TABLE = TEXT.partition("| where |")[2].partition("\n\n")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE.splitlines()[2:]]
PLACES = [
    "plain script",
    "native threads",
    "gevent",
    "asyncio.to_thread",
    "Jupyter",
    "wsgiref",
    "gunicorn, `sync`",
    "gunicorn, `gthread`",
    "gunicorn, `gevent`",
    "`preload_app`, `sync` or `gthread`",
    "`preload_app`, `gevent`",
    "uWSGI",
    "Celery, prefork",
    "multiprocessing, fork",
    "multiprocessing, forkserver",
    "multiprocessing, spawn",
    "pytest-xdist",
]


@cache
def named_in(path):
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    return {item.name for item in body if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")}


@pytest.mark.parametrize("place", PLACES)
def test_each_place_has_its_row(place):
    assert [row[0] for row in ROWS if place in row[0]], place


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_says_what_to_write_what_happens_and_what_tests_it(row):
    where, write, underneath, tested = row
    assert where
    assert write
    assert underneath
    assert tested.startswith("no;") or TEST.sub("", tested).replace("<br>", "") == "", tested
    for path, test in TEST.findall(tested):
        assert test in named_in(path), f"{path} has no {test}"


def test_the_program_makes_a_client(tmp_path):
    (program,) = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    certs.make(tmp_path, ["localhost"], ["web"])
    done = run_python("-c", program + "print(counter.info()['state'], counter.info()['hub'])", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("idle None\n", "")


@pytest.mark.parametrize("target", re.findall(r"\]\(([^):]+)\)", TEXT))
def test_a_link_leads_somewhere(target):
    path, _, anchor = target.partition("#")
    text = (ROOT / "docs" / path).read_text(encoding="utf-8") if path.endswith(".md") else TEXT
    assert (ROOT / "docs" / path).exists()
    assert not anchor or f"## {anchor}" in text.lower()
