"""Local names."""

from __future__ import annotations

import pytest

from erps_gevent.errors import AlreadyStarted, ConfigError
from erps_gevent.otp import names


@pytest.fixture
def held():
    names.take("held", "a pid")
    yield "held"
    names.free("held")


def test_a_name_leads_to_its_holder(held):
    assert names.holder_of(held) == "a pid"


def test_a_name_that_is_taken_stays_with_its_holder(held):
    with pytest.raises(AlreadyStarted, match=r"'held' belongs to 'a pid'") as caught:
        names.take(held, "another")
    assert caught.value.pid == "a pid"
    assert names.holder_of(held) == "a pid"


def test_taking_a_name_again_changes_nothing(held):
    names.take(held, "a pid")
    assert names.holder_of(held) == "a pid"


def test_a_freed_name_is_free_and_freeing_it_again_is_no_error(held):
    names.free(held)
    names.free(held)
    assert names.holder_of(held) is None


@pytest.mark.parametrize("name", ["", b"bytes", 7, ("tuple",), None, 1.0])
@pytest.mark.parametrize("act", [names.holder_of, lambda name: names.take(name, "a pid"), names.check_name])
def test_bad_names_are_refused_and_shown(name, act):
    """Case 15, EG "start_link/3"."""
    with pytest.raises(ConfigError) as caught:
        act(name)
    assert repr(name) in str(caught.value)
