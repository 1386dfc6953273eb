"""Requirements: the cases of Elixir's own test of `Version`, and what is said of a string that is no requirement."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from erps_gevent.errors import ConfigError
from erps_gevent.wire.requirement import Requirement, parse_versions

# (version, requirement, whether it is met): lib/elixir/test/elixir/version_test.exs, test by test.
ELIXIR = [
    ("2.3.0", "2.3.0", True),
    ("2.4.0", "2.3.0", False),
    ("2.3.0", "== 2.3.0", True),
    ("2.4.0", "== 2.3.0", False),
    ("1.2.3-alpha", "1.2.3-alpha", True),
    ("0.9.3", "== 0.9.3+dev", True),
    ("2.4.0", "!2.3.0", True),
    ("2.3.0", "!2.3.0", False),
    ("2.4.0", "!= 2.3.0", True),
    ("2.3.0", "!= 2.3.0", False),
    ("2.4.0", "> 2.3.0", True),
    ("2.2.0", "> 2.3.0", False),
    ("2.3.0", "> 2.3.0", False),
    ("2.4.0", "    >     2.3.0", True),
    ("1.2.3", "> 1.2.3-alpha", True),
    ("1.2.3-alpha.1", "> 1.2.3-alpha", True),
    ("1.2.3-alpha.beta.sigma", "> 1.2.3-alpha.beta", True),
    ("1.2.3-alpha.10", "< 1.2.3-alpha.1", False),
    ("0.10.2-dev", "> 0.10.2", False),
    ("2.4.0", ">= 2.3.0", True),
    ("2.2.0", ">= 2.3.0", False),
    ("2.3.0", ">= 2.3.0", True),
    ("2.2.0", "< 2.3.0", True),
    ("2.4.0", "< 2.3.0", False),
    ("2.3.0", "< 2.3.0", False),
    ("0.10.2-dev", "< 0.10.2", True),
    ("1.0.0", "< 1.0.0-dev", False),
    ("1.2.3-dev", "< 0.1.2", False),
    ("2.2.0", "<= 2.3.0", True),
    ("2.4.0", "<= 2.3.0", False),
    ("2.3.0", "<= 2.3.0", True),
    ("3.0.0", "~> 3.0", True),
    ("3.2.0", "~> 3.0", True),
    ("4.0.0", "~> 3.0", False),
    ("4.4.0", "~> 3.0", False),
    ("2.9.0", "~> 3.0", False),
    ("3.0.2", "~> 3.0.0", True),
    ("3.0.0", "~> 3.0.0", True),
    ("3.1.0", "~> 3.0.0", False),
    ("3.4.0", "~> 3.0.0", False),
    ("3.6.0", "~> 3.5", True),
    ("3.5.0", "~> 3.5", True),
    ("4.0.0", "~> 3.5", False),
    ("3.5.4", "~> 3.5.0", True),
    ("3.6.0", "~> 3.5.0", False),
    ("0.9.3", "~> 0.9.3-dev", True),
    ("0.10.0", "~> 0.9.3-dev", False),
    ("0.3.0-dev", "~> 0.2.0", False),
    ("1.11.0-dev", "~> 1.10-dev", True),
    ("2.0.0-dev", "~> 1.10-dev", False),
    ("0.9.3", "> 0.9.0 and < 0.10.0", True),
    ("0.10.2", "> 0.9.0 and < 0.10.0", False),
    ("0.9.1", "0.9.1 or 0.9.3 or 0.9.5", True),
    ("0.9.5", "0.9.1 or 0.9.3 or 0.9.5", True),
    ("0.9.6", "0.9.1 or 0.9.3 or 0.9.5", False),
]
# Of Version.compare/2 in the same file: each is below the next.
ASCENDING = ("0.1.2", "1.0.0-0", "1.0.0-a", "1.0.0-a.a", "1.0.0-a.b", "1.0.0-b", "1.0.0-dev", "1.0.0", "1.0.1", "1.1.0")


@pytest.mark.parametrize(("version", "text", "met"), ELIXIR)
def test_a_requirement_means_what_it_means_in_elixir(version, text, met):
    assert Requirement(text).contains(version) is met


def test_versions_are_ordered_as_in_elixir():
    for low, high in pairwise(ASCENDING):
        assert Requirement(f"< {high}").contains(low)
        assert not Requirement(f"<= {low}").contains(high)


@pytest.mark.parametrize(
    ("version", "met"), [("1.4.0", True), ("2.0.0", False), ("3.1.0", True), ("3.1.1", False), ("0.9.0", False)]
)
def test_and_and_or_join(version, met):
    assert Requirement("~> 1.0 and < 2.0.0 or == 3.1.0").contains(version) is met


@pytest.mark.parametrize("version", ["1.0.0", "3.0.0"])
def test_and_binds_no_tighter_than_or(version):
    """Elixir folds from the left: (1.0.0 or 3.0.0) and < 2.0.0."""
    assert Requirement("1.0.0 or 3.0.0 and < 2.0.0").contains(version) is (version == "1.0.0")


@pytest.mark.parametrize("version", ["foo", "2.3", "2", "2.3.0-01", "2.3.0.1", "", "02.3.0", "1.0." + 5000 * "9"])
def test_what_is_no_version_is_not_compared(version):
    with pytest.raises(ValueError, match="no version of three numbers"):
        Requirement("2.3.0").contains(version)


def test_a_requirement_shows_its_text():
    requirement = Requirement("~> 1.0")
    assert str(requirement) == "~> 1.0"
    assert repr(requirement) == "<Requirement '~> 1.0'>"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("foo", "'foo': 'foo' is no version of three numbers, as in '== 1.0.0'"),
        ("2.3", "'2.3': '2.3' is no version of three numbers, as in '== 1.0.0'"),
        ("> 2.3", "'> 2.3': '2.3' is no version of three numbers, as in '> 1.0.0'"),
        ("~> 3", "'~> 3': '3' is no version of two or three numbers, as in '~> 1.0'"),
        ("== == 2.0.1", "'== == 2.0.1': '== 2.0.1' is no version of three numbers, as in '== 1.0.0'"),
        ("2.3.0-01", "'2.3.0-01': '2.3.0-01' is no version of three numbers"),
        ("~> 1.0 and <2", "'<2' in '~> 1.0 and <2': '2' is no version of three numbers, as in '< 1.0.0'"),
        ("~> 1.0 or x or 2.0.0", "'x' in '~> 1.0 or x or 2.0.0': 'x' is no version of three numbers"),
        ("~> 1.0, < 1.5.0", "'~> 1.0, < 1.5.0' has a comma: write and, as in '~> 1.0 and < 1.5.0'"),
        ("~> 1.0 and ", "'' in '~> 1.0 and ' has no version: write a comparison"),
        ("~> 1.0 and  or 2.0.0", "'' in '~> 1.0 and  or 2.0.0' has no version"),
        ("~>", "'~>' has no version"),
        ("", "'' has no version"),
    ],
)
def test_what_is_no_requirement_is_refused_with_the_part_that_is_wrong(text, words):
    with pytest.raises(ConfigError) as caught:
        Requirement(text)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("text", ["~> 1.0", "1.0.0", "!1.0.0", "~> 1.0 or == 3.1.0", ">= 1.0.0-alpha.one", ">=1.0.0"])
def test_what_elixir_reads_is_a_requirement(text):
    assert isinstance(parse_versions(text), Requirement)


@pytest.mark.parametrize("text", ["~=1.0", ">=1.2,<2", "==1.*", ">=1", "", "===1.0.0", " >=1.0 , <2 "])
def test_everything_else_is_a_specifier_of_packaging(text):
    found = parse_versions(text)
    assert found == SpecifierSet(text)


@given(sign=st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), numbers=st.lists(st.integers(0, 3), min_size=6))
def test_plain_comparisons_mean_the_same_in_both(sign, numbers):
    one, other = (".".join(map(str, numbers[start : start + 3])) for start in (0, 3))
    assert Requirement(f"{sign} {one}").contains(other) is SpecifierSet(f"{sign}{one}").contains(other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("about 1", "'about 1' is no version specifier: write '~=1.0', '>=1.2,<2' or '~> 1.0'"),
        (">=1.2,<x", "'<x' in '>=1.2,<x' is no version specifier"),
        ("1.2,<2", "'1.2' in '1.2,<2' is no version specifier"),
        ("~> one", "'~> one': 'one' is no version of two or three numbers"),
        (">=1 and <2", "'>=1' in '>=1 and <2': '1' is no version of three numbers, as in '>= 1.0.0'"),
    ],
)
def test_what_is_neither_is_refused_with_the_part_that_is_wrong(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_versions(text)
    assert str(caught.value).startswith(words)
    assert caught.value.__cause__ is None


@given(st.text(alphabet="~><=! .,andor0123-+*x", max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_versions(text)
    except ConfigError:
        return
    assert found.contains("1.0.0") in (True, False)
