"""examples/supervised, as its docstring says."""

from __future__ import annotations

import re

import pytest

CHAPTERS = {
    "The house is built": r"""
    alice: in the house, with alice
    bob: in the house, with alice bob
    alice: bell 1
    bob: bell 1
""",
    "The bell breaks": r"""
    bell: <Pid \d+ Bell> is dead, <Pid \d+ Bell> is in its place
    alice: bell 1
    bob: bell 1
""",
    "Alice's host crashes": r"""
    alice: out of the house: .*RuntimeError: the guest asked for it
    alice: in the house, with alice bob
    lines: alice has had 2, bob 1
""",
    "The daemon is killed": r"""
    door: <Pid \d+ Daemon> is dead, <Pid \d+ Daemon> is in its place
    carol: in the house, with alice bob carol
    lines: alice has had 2, bob 1, carol 1
    the new daemon has 1 line, the house 3 guests
""",
    "The supervisor of the hosts is killed": r"""
    hosts: <Pid \d+ DynamicSupervisor> is dead, <Pid \d+ DynamicSupervisor> is in its place
(    alice: out of the house: .*
)+    alice: in the house, with .*alice.*
(    bob: out of the house: .*
)+    bob: in the house, with .*bob.*
(    carol: out of the house: .*
)+    carol: in the house, with .*carol.*
    the daemon is the same: True
""",
    "The registry is killed": r"""
    guests: <Pid \d+ Registry> is dead, <Pid \d+ Registry> is in its place
(    alice: out of the house: .*
)+    alice: in the house, with .*alice.*
(    bob: out of the house: .*
)+    bob: in the house, with .*bob.*
(    carol: out of the house: .*
)+    carol: in the house, with .*carol.*
    the daemon is the same: False
""",
    "The house is closed": r"""
    processes left: \[\]
""",
}


@pytest.fixture
def told(example):
    """The chapters of the story by their first words, which its README shows too."""
    *_, story = example.commands
    assert story.endswith("story.py")
    return example.run(story).split("\n\n")


def test_the_story_is_told_from_end_to_end(told):
    assert len(told) == len(CHAPTERS)
    for text, (title, expected) in zip(told, CHAPTERS.items(), strict=True):
        assert re.fullmatch(re.escape(title) + ".*" + expected, text.rstrip("\n") + "\n"), text


def test_the_readme_begins_to_tell_the_same(told, example):
    readme = (example.place / "README.md").read_text(encoding="utf-8")
    shown = re.sub(r"(?m)^    ", "", readme[readme.index("    The house is built") :].split("\n\nand so on")[0])
    for text, chapter in zip(told, shown.split("\n\n"), strict=False):
        assert re.sub(r"\d+", "#", chapter.strip()) == re.sub(r"\d+", "#", text.strip())


class Terminal:
    """A client in a terminal."""

    def __init__(self, process):
        self.process = process

    def type(self, text):
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def hear(self, what):
        """Read up to a line that begins with `what`, and return that."""
        line = "-"
        while not line.startswith(what):
            line = self.process.stdout.readline()
            assert line, f"it ended before it said {what!r}"
        return line.rstrip("\n")


@pytest.fixture
def house(example):
    """The server, and a function by which guests come in."""
    serve, alice, bob, _ = example.commands
    assert bob == alice.replace("alice", "bob")

    def enter(name):
        guest = Terminal(example.start(alice.replace("alice", name)))
        guest.hear("-- in the house")
        return guest

    return example.serve(serve), enter


def test_guests_in_terminals_break_things_and_carry_on(house, example):
    server, enter = house
    alice, bob = enter("alice"), enter("bob")
    alice.type("ring")
    assert [alice.hear("-- bell"), bob.hear("-- bell")] == ["-- bell 1"] * 2
    alice.type("break")
    alice.type("crash")
    alice.hear("-- out of the house")
    assert alice.hear("-- in the house") == "-- in the house, with alice bob"
    bob.type("ring")
    assert [alice.hear("-- bell"), bob.hear("-- bell")] == ["-- bell 1"] * 2
    bob.type("who")
    assert bob.hear("here are") == "here are alice bob"
    status, errors = example.stop(server)
    assert status == 0
    assert "RuntimeError: the bell is broken" in errors
    assert "RuntimeError: the guest asked for it" in errors


def test_a_name_is_given_once(house, example):
    _, enter = house
    enter("alice")
    second = Terminal(example.start(example.commands[1]))
    assert second.hear("-- not in the house") == "-- not in the house: name_taken: alice is in already"
    _, errors = second.process.communicate("who\n" * 1000, timeout=30)
    assert errors.startswith("-- closed: ")
    assert second.process.returncode == 1
