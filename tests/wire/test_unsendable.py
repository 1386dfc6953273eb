"""The text of an EncodeError leads to the part that cannot be sent."""

from __future__ import annotations

from fractions import Fraction

from erps_gevent.wire.unsendable import Unsendable, name_of


def at(*path):
    found = Unsendable("it is odd")
    found.path += reversed(path)
    return found.text("request")


def test_the_text_has_the_way_from_the_outside_in():
    assert at() == "cannot send request: it is odd"
    assert at(1, "'when'") == "cannot send request[1]['when']: it is odd"


def test_the_middle_of_a_long_way_is_left_out():
    assert at(*range(12)) == f"cannot send request{''.join(f'[{n}]' for n in range(12))}: it is odd"
    assert at(*range(13)) == "cannot send request[0][1][2][3][4][5]...[7][8][9][10][11][12]: it is odd"


def test_a_type_is_called_by_its_module_unless_it_is_built_in():
    assert (name_of(dict), name_of(Fraction)) == ("dict", "fractions.Fraction")
