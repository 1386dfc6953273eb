"""test/compile_time/compile_time_test.exs of Erps 0.7.0: an identifier that is too long.

Upstream more than 11 bytes do not compile, although the wire has room for 36: here the limit is that of the wire.
"""

from __future__ import annotations

import pytest

import erps_gevent as erps

TOO_LONG = 37 * "x"
REMEDY = "identifier: identifier 'x+' is 37 bytes of UTF-8; shorten it to 36"


def test_the_server_fails_to_compile():
    """test/compile_time/compile_time_test.exs:8. What fails is the class statement."""
    with pytest.raises(erps.ConfigError, match=f"class Server: {REMEDY}"):

        class Server(erps.Server, identifier=TOO_LONG):
            pass


def test_the_client_fails_to_compile():
    """test/compile_time/compile_time_test.exs:17."""
    with pytest.raises(erps.ConfigError, match=f"class Client: {REMEDY}"):

        class Client(erps.Client, identifier=TOO_LONG):
            pass
