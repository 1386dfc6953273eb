"""Addresses are read as they are meant, or refused with the remedy; a peer can be printed and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erps_gevent.errors import ConfigError
from erps_gevent.transport.address import Address, Peer, names_in, parse_address, peer_address, subject_of
from erps_gevent.transport.tcp import Tcp
from erps_gevent.transport.tls import OneWayTls

READ = [
    (("counter.example", 4747), Address("counter.example", 4747)),
    (["counter.example", 4747], Address("counter.example", 4747)),
    (("::1", 4747), Address("::1", 4747)),
    (("[::1]", 4747), Address("::1", 4747)),
    (("::1", 4747, 0, 0), Address("::1", 4747)),
    (("fe80::1", 4747, 0, 3), Address("fe80::1%3", 4747)),
    (("fe80::1%eth0", 4747, 0, 3), Address("fe80::1%eth0", 4747)),
    ("/run/x.sock", Address(path="/run/x.sock")),
    ("./x", Address(path="./x")),
    (Path("/run/x.sock"), Address(path="/run/x.sock")),
    ("erps://counter.example:4747", Address("counter.example", 4747, scheme="erps")),
    ("erps://counter.example:4747/", Address("counter.example", 4747, scheme="erps")),
    ("erps://[::1]:4747", Address("::1", 4747, scheme="erps")),
    ("erps+tcp://127.0.0.1:1", Address("127.0.0.1", 1, scheme="erps+tcp")),
    ("erps+unix:///run/x%20y.sock", Address(path="/run/x y.sock", scheme="erps+unix")),
    (Address("h", 1), Address("h", 1)),
]


@pytest.mark.parametrize(("written", "meant"), READ, ids=lambda value: str(value))
def test_an_address_is_read_as_it_is_meant(written, meant):
    assert parse_address(written) == meant


REFUSED = [
    (None, "is a NoneType"),
    (b"/run/x.sock", "is bytes"),
    (4747, "is a int"),
    ("", "neither a scheme nor a slash"),
    ("counter.example:4747", "'erps://host:4747'"),
    (("h",), "has 1 parts"),
    (("h", 1, 2), "has 3 parts"),
    ((b"h", 4747), "write 'h'"),
    ((None, 4747), "the host None is a NoneType"),
    (("h", "4747"), "the port '4747' is a str, not an int"),
    (("h", True), "the port True is a bool"),
    (("h", 0), "the port 0 is outside 1 to 65535"),
    (("h", 65536), "the port 65536 is outside"),
    (("h", -1), "the port -1 is outside"),
    (("", 4747), "the host is empty"),
    (("a" * 64, 4747), "not a name that DNS can hold"),
    (("a b", 4747), "a blank or a control character"),
    ("erps://h", "has no port: write erps://h:4747"),
    ("erps://:4747", "the host is empty"),
    ("erps://h:x", "is not a URL that can be read"),
    ("erps://h:99999", "is not a URL that can be read"),
    ("erps://[::1:4747", "is not a URL that can be read"),
    ("erps://u@h:1", "more than a host and a port"),
    ("erps://h:1/path", "more than a host and a port"),
    ("erps://h:1?q", "more than a host and a port"),
    ("http://h:1", "has the scheme 'http'"),
    ("erps+unix://run/x.sock", "three slashes"),
    ("erps+unix://", "three slashes"),
    ("/" + "x" * 110, "a unix socket takes"),
    ("/a\0b", "has a NUL"),
    ("/\ud800", "cannot be a file name"),
]


@pytest.mark.parametrize(("written", "complaint"), REFUSED, ids=lambda value: repr(value)[:30])
def test_a_wrong_address_is_refused_with_the_reason(written, complaint):
    with pytest.raises(ConfigError) as caught:
        parse_address(written)
    assert complaint in str(caught.value)


def test_a_path_is_refused_where_the_file_system_cannot_hold_it(monkeypatch):
    def narrow(path):
        raise UnicodeEncodeError("ascii", path, 0, 1, "ordinal not in range")

    monkeypatch.setattr("os.fsencode", narrow)
    with pytest.raises(ConfigError, match="cannot be a file name here"):
        parse_address("/é")


def test_a_listener_may_leave_host_and_port_open():
    assert parse_address(("", 0), listening=True) == Address("", 0)


def test_the_scheme_erps_is_refused_without_tls():
    with pytest.raises(ConfigError, match=r"erps://h:1 means TLS.*write erps\+tcp://h:1, or transport=Tls\("):
        parse_address("erps://h:1", Tcp())


def test_the_scheme_erps_tcp_is_refused_with_tls():
    with pytest.raises(ConfigError, match=r"erps\+tcp://h:1 means no TLS.*write erps://h:1, or transport=Tcp\("):
        parse_address("erps+tcp://h:1", OneWayTls())


@pytest.mark.parametrize("transport", [Tcp(), OneWayTls(), None])
def test_the_scheme_erps_unix_goes_with_any_transport(transport):
    assert parse_address("erps+unix:///x", transport).path == "/x"


@given(st.text() | st.text().map("erps://".__add__) | st.tuples(st.text(), st.integers()) | st.binary())
def test_anything_at_all_is_an_address_or_a_config_error(written):
    try:
        parsed = parse_address(written)
    except ConfigError:
        return
    assert parse_address(parsed) == parsed


@pytest.mark.parametrize(
    ("address", "text"), [(("h", 1), "h:1"), (("::1", 1), "[::1]:1"), ("/run/x", "/run/x"), ("erps://h:1", "h:1")]
)
def test_an_address_can_be_printed(address, text):
    assert str(parse_address(address)) == text


@pytest.mark.parametrize(
    ("kernel_says", "shown"),
    [
        (("::ffff:10.0.0.1", 5, 0, 0), ("10.0.0.1", 5)),
        (("::1", 5, 0, 0), ("::1", 5)),
        (("10.0.0.1", 5), ("10.0.0.1", 5)),
        ("/run/x", "/run/x"),
        (b"\0x", "\0x"),
    ],
)
def test_a_peers_address_is_simple(kernel_says, shown):
    assert peer_address(kernel_says) == shown


def rdn(*pairs):
    return tuple(((name, value),) for name, value in pairs)


SUBJECTS = [
    (rdn(("organizationName", "Example"), ("commonName", "client-1")), "CN=client-1,O=Example"),
    (rdn(("commonName", 'a,b+c"d\\e<f>;g=')), 'CN=a\\,b\\+c\\"d\\\\e\\<f\\>\\;g\\='),
    (rdn(("commonName", "#a")), "CN=\\#a"),
    (rdn(("commonName", " a ")), "CN=\\ a\\ "),
    (rdn(("commonName", " ")), "CN=\\ "),
    (rdn(("commonName", "a\nO=b")), "CN=a\\0AO\\=b"),
    (rdn(("emailAddress", "x@y")), "emailAddress=x@y"),
    (((("commonName", "a"), ("userId", "7")),), "CN=a+UID=7"),
    ((), ""),
]


@pytest.mark.parametrize(("subject", "text"), SUBJECTS)
def test_a_subject_is_written_by_rfc_4514(subject, text):
    assert subject_of({"subject": subject}) == text


def test_the_names_of_a_certificate_come_without_their_kinds():
    names = ("DNS", "a.example"), ("IP Address", "0:0:0:0:0:0:0:1"), ("IP Address", "<invalid>")
    assert names_in({"subjectAltName": names}) == ("a.example", "::1", "<invalid>")
    assert names_in({}) == ()


def test_a_peer_can_be_printed():
    assert str(Peer(("h", 1))) == "h:1"
    assert str(Peer("unix:pid=1,uid=0")) == "unix:pid=1,uid=0"
    assert str(Peer(("h", 1), certificate={"x": 1}, subject="CN=a")) == "CN=a at h:1"
    assert str(Peer(("h", 1), certificate={"x": 1}, subject="", sans=("b", "c"))) == "b, c at h:1"
    assert str(Peer(("h", 1), key_id="2024")) == "key '2024' at h:1"
    assert str(Peer(("h", 1), key_id=b"\n")) == r"key b'\n' at h:1"
    assert str(Peer(("h", 1), certificate={"x": 1}, subject="CN=a", key_id="k")) == "CN=a, key 'k' at h:1"


def test_a_peer_has_the_common_name_of_its_certificate():
    subject = ((("organizationName", "O"),), (("commonName", "client-1"),))
    assert Peer(("h", 1), certificate={"subject": subject}).common_name == "client-1"
    assert Peer(("h", 1), certificate={"subject": subject[:1]}).common_name is None
    assert Peer(("h", 1)).common_name is None
