"""Certificates on disk: what is in the files, who may read them, and that two ends agree over them."""

from __future__ import annotations

import builtins
import ssl
import stat

import pytest

from erps_gevent import certs
from erps_gevent.errors import ConfigError


def contexts(issued, server=0, client=0):
    """A server's and a client's context, each of which demands a certificate of the other."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.verify_mode = ssl.CERT_REQUIRED
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context, one in ((serving, issued.servers[server]), (dialling, issued.clients[client])):
        context.load_verify_locations(issued.ca)
        context.load_cert_chain(one.cert, one.key)
    return serving, dialling


def shake_hands(serving, dialling, name):
    """Complete a handshake in memory; return what each end calls the other: (server's view, client's view)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = dialling.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [client, server]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert waiting == []
    return common_name(server.getpeercert()), common_name(client.getpeercert())


def common_name(certificate):
    return dict(pair for part in certificate["subject"] for pair in part)["commonName"]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "new" / "certs"


@pytest.fixture
def issued(place):
    return certs.make(place, ["localhost,127.0.0.1,::1"], ["alice"])


def test_server_and_client_complete_a_two_way_handshake(issued):
    assert shake_hands(*contexts(issued), "localhost") == ("alice", "localhost")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_one_certificate_holds_every_name_between_commas(issued, name):
    assert shake_hands(*contexts(issued), name) == ("alice", "localhost")


def test_a_name_that_was_not_asked_for_is_refused(issued):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(*contexts(issued), "elsewhere.example")


def test_two_runs_make_two_authorities(issued, tmp_path):
    other = certs.make(tmp_path / "other", [], ["alice"])
    serving, _ = contexts(issued)
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.load_verify_locations(issued.ca)
    dialling.load_cert_chain(other.clients[0].cert, other.clients[0].key)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(serving, dialling, "localhost")


def test_only_the_owner_can_read_a_key(issued):
    for one in issued.servers + issued.clients:
        assert stat.S_IMODE(one.key.stat().st_mode) == 0o600


def test_the_authoritys_key_is_not_written(issued, place):
    assert {path.name for path in place.iterdir()} == {
        *("ca.pem", "localhost.pem", "localhost.key", "alice.pem", "alice.key"),
    }
    assert b"PRIVATE KEY" not in issued.ca.read_bytes()


def test_files_that_exist_are_kept_and_named(place):
    place.mkdir(parents=True)
    (place / "bob.key").write_text("precious")
    with pytest.raises(ConfigError, match=r"bob\.key already there.*--force"):
        certs.make(place, [], ["alice", "bob"])
    assert [path.name for path in place.iterdir()] == ["bob.key"]
    assert (place / "bob.key").read_text() == "precious"


def test_force_replaces_and_closes_an_open_key(place):
    place.mkdir(parents=True)
    (place / "bob.key").write_text("old")
    (place / "bob.key").chmod(0o644)
    issued = certs.make(place, ["localhost"], ["bob"], force=True)
    assert shake_hands(*contexts(issued), "localhost") == ("bob", "localhost")
    assert stat.S_IMODE((place / "bob.key").stat().st_mode) == 0o600


def test_force_does_not_write_a_key_through_a_link(place, tmp_path):
    place.mkdir(parents=True)
    (tmp_path / "target").write_text("untouched")
    (place / "bob.key").symlink_to(tmp_path / "target")
    certs.make(place, [], ["bob"], force=True)
    assert (tmp_path / "target").read_text() == "untouched"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("*.example.org", "_.example.org.pem"),
        ("::1", "__1.pem"),
        ("bob@example.org", "bob@example.org.pem"),
        ("10.0.0.0/8", "10.0.0.0_8.pem"),
    ],
)
def test_a_name_that_is_no_file_name_is_written_as_one(place, name, file):
    assert certs.make(place, [name], []).servers[0].cert == place / file
    assert (place / file).exists()


@pytest.mark.parametrize("name", ["../up", "no such host", "under_score", "x" * 70])
def test_what_is_no_name_is_refused_and_nothing_is_written(place, name):
    with pytest.raises(ConfigError, match="not a host name"):
        certs.make(place, ["localhost"], [name])
    assert not place.exists()


@pytest.mark.parametrize("name", ["", "localhost,", ",localhost", "a,,b"])
def test_an_empty_name_is_refused(place, name):
    with pytest.raises(ConfigError, match="empty name"):
        certs.make(place, [name], [])


@pytest.mark.parametrize(("servers", "clients"), [(["ca"], []), (["a"], ["a"]), ([], ["a", "a,b"])])
def test_two_certificates_for_one_file_are_refused(place, servers, clients):
    with pytest.raises(ConfigError, match="the same file"):
        certs.make(place, servers, clients)
    assert not place.exists()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is not a directory"):
        certs.make(tmp_path / "file", [], ["alice"])


def test_a_directory_that_cannot_be_written_is_named(place, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        certs.make(place, [], ["alice"])


def test_without_trustme_the_error_says_how_to_get_it(place, monkeypatch):
    real = builtins.__import__

    def without_trustme(name, *args, **kwargs):
        if name == "trustme":
            raise ModuleNotFoundError("No module named 'trustme'", name="trustme")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_trustme)
    with pytest.raises(ConfigError, match=r"pip install 'erps_gevent\[demo\]'") as caught:
        certs.make(place, [], ["alice"])
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert not place.exists()
