"""examples/chat, as its docstring says."""

from __future__ import annotations

import pytest

IN_THE_ROOM = "-- you are in the room\n"


class Person:
    """A client in a terminal: its lines come from `hear`, and it types with `say`."""

    def __init__(self, process):
        self.process = process

    def hear(self):
        return self.process.stdout.readline()

    def say(self, text):
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def leave(self):
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@pytest.fixture
def room(example):
    """The room's server, and a function by which people come in."""
    make, serve, alice, bob = example.commands
    assert bob == alice.replace("alice", "bob")
    example.run(make)

    def enter(name):
        person = Person(example.start(alice.replace("alice", name)))
        assert person.hear() == IN_THE_ROOM
        return person

    return example.serve(serve), enter


def test_what_one_says_is_heard_by_all_in_the_same_order(room):
    _, enter = room
    alice, bob = enter("alice"), enter("bob")
    alice.say("hello")
    assert [alice.hear(), bob.hear()] == ["alice: hello\n"] * 2
    bob.say("hi")
    assert [alice.hear(), bob.hear()] == ["bob: hi\n"] * 2
    assert bob.leave() == (0, "")
    alice.say("bye")
    assert alice.hear() == "alice: bye\n"


def test_who_comes_later_is_told_what_was_said(room):
    _, enter = room
    alice = enter("alice")
    alice.say("hello")
    assert alice.hear() == "alice: hello\n"
    carol = enter("carol")
    assert carol.hear() == "alice: hello\n"
    assert carol.leave() == (0, "")


def test_who_was_in_the_room_is_in_it_again_after_a_restart(room, example):
    server, enter = room
    alice = enter("alice")
    assert example.stop(server) == (0, "")
    assert alice.hear().startswith("-- ")
    example.serve(example.commands[1])
    while alice.hear() != IN_THE_ROOM:
        pass
    alice.say("still here")
    assert alice.hear() == "alice: still here\n"
