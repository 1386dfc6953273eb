"""Two tests that use the same room, as if they were alone in the world. With a universe for each they are."""

import rooms


def test_who_enters_the_lobby_first_is_alone():
    assert rooms.enter("lobby", "alice") == ["alice"]
    assert rooms.people("lobby") == ["alice"]


def test_who_leaves_the_lobby_leaves_it_empty():
    assert rooms.enter("lobby", "bob") == ["bob"]
    assert rooms.move("bob", "lobby", "garden") == ["bob"]
    assert rooms.people("lobby") == []
