"""The words of OTP: only ever themselves."""

from __future__ import annotations

import copy
import pickle

import pytest

from erps_gevent.otp import words

WORDS = [word for word in vars(words).values() if isinstance(word, words.Word)]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_stays_itself_when_copied_or_pickled(word):
    assert copy.copy(word) is word
    assert copy.deepcopy(word) is word
    assert pickle.loads(pickle.dumps(word)) is word


def test_the_words_print_as_in_otp():
    expected = ["normal", "shutdown", "kill", "killed", "noproc", "timeout", "hibernate", "restarting", "absent"]
    assert list(map(repr, WORDS)) == expected
