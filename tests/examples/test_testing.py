"""examples/testing, as its docstring says: one suite over three transports, and one that runs at once in universes."""

from __future__ import annotations

PASSED = [
    "test_who_enters_the_lobby_first_is_alone passed",
    "test_who_leaves_the_lobby_leaves_it_empty passed",
]
MET = [
    "test_who_enters_the_lobby_first_is_alone failed: AssertionError: assert ['bob', 'alice'] == ['alice']",
    "test_who_leaves_the_lobby_leaves_it_empty failed: AssertionError: assert ['alice'] == []",
]


def test_the_tests_of_the_counter_pass_over_every_transport(example):
    over_every_transport, *_ = example.commands
    out = example.run(over_every_transport + " -v")
    assert "17 passed" in out
    for transport in ("memory", "tcp", "tls"):
        assert f"test_it_counts[{transport}] PASSED" in out


def test_one_after_the_other_they_pass(example):
    _, one_after_the_other, _, _ = example.commands
    assert "2 passed" in example.run(one_after_the_other)


def test_at_the_same_time_they_pass_with_universes(example):
    _, _, at_once, _ = example.commands
    assert sorted(example.run(at_once).splitlines()) == PASSED


def test_at_the_same_time_they_meet_without_universes(example):
    _, _, _, without = example.commands
    process = example.start(without)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, "")
    assert sorted(out.splitlines()) == MET
