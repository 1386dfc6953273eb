"""examples/README.md has a line for each example."""

from __future__ import annotations

import re

from support import ROOT

EXAMPLES = ROOT / "examples"


def test_every_example_has_its_line():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    directories = {path.parent.name for path in EXAMPLES.glob("*/*.py")}
    assert set(re.findall(r"^- \[(\w+)\]\(\1\): ", text, flags=re.MULTILINE)) == directories
