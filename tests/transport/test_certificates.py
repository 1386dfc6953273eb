"""Certificates are checked when they are named, read from files or PEM, and picked up again when they change."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
import sys
import tempfile

import pytest
from cryptography.hazmat.primitives import serialization
from support import child_environ

from erps_gevent.errors import ConfigError
from erps_gevent.transport import certificates
from erps_gevent.transport.certificates import Credentials, shown


@pytest.fixture
def own(authority):
    return authority.issued("localhost")


@pytest.fixture
def files(tmp_path, authority, own):
    """ca.pem, cert.pem and key.pem, as the keywords of Credentials."""

    def write(**contents):
        for name, content in contents.items():
            (tmp_path / f"{name}.pem").write_bytes(content)

    write(ca=authority.pem, **own)
    return {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}


def credentials(ca=None, cert=None, key=None, password=None):
    return Credentials(ca, cert, key, password, verify_clients=True, check_hostname=True)


def encrypted(key, password=b"secret"):
    loaded = serialization.load_pem_private_key(key, None)
    how = serialization.BestAvailableEncryption(password)
    return loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def test_files_may_be_named_by_str_or_path(files):
    credentials(**files)
    credentials(**{name: str(path) for name, path in files.items()})


def test_pem_may_be_given_as_bytes_and_leaves_no_file(authority, own, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    credentials(authority.pem, **own).context(server_side=True)
    assert os.listdir(tmp_path) == []


def test_pem_on_disk_is_for_the_user_alone(authority, own, monkeypatch):
    modes = []
    original = certificates._as_file

    class Watched:
        def __init__(self, source):
            self.file = original(source)

        def __enter__(self):
            path = self.file.__enter__()
            modes.append(os.stat(path).st_mode & 0o777)
            return path

        def __exit__(self, *exc):
            return self.file.__exit__(*exc)

    monkeypatch.setattr(certificates, "_as_file", Watched)
    credentials(authority.pem, **own)
    assert modes == [0o600] * 3


def test_the_key_may_be_in_the_file_of_the_certificate(own):
    credentials(cert=own["cert"] + own["key"])


@pytest.mark.parametrize("password", ["secret", b"secret", lambda: "secret", lambda: b"secret"])
def test_an_encrypted_key_is_opened_with_its_password(own, password):
    credentials(cert=own["cert"], key=encrypted(own["key"]), password=password)


def refused(match, **options):
    with pytest.raises(ConfigError, match=match) as caught:
        credentials(**options)
    return caught.value


def test_an_encrypted_key_without_password_is_refused_and_nobody_is_asked(own):
    refused(r"key=<PEM> is encrypted: pass password= with it", cert=own["cert"], key=encrypted(own["key"]))


def test_nobody_is_asked_on_a_terminal(tmp_path, own):
    (tmp_path / "both.pem").write_bytes(own["cert"] + encrypted(own["key"]))
    script = (
        "from erps_gevent.transport.certificates import *\n"
        "try: Credentials(None, 'both.pem', None, None, verify_clients=True, check_hostname=True)\n"
        "except ConfigError as exc: print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=child_environ(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "cert='both.pem' is encrypted: pass password= with it\n", done.stderr


def test_a_wrong_password_is_refused(own):
    match = "key=<PEM> cannot be decrypted with the password= given"
    error = refused(match, cert=own["cert"], key=encrypted(own["key"]), password="guess")
    assert isinstance(error.__cause__, ssl.SSLError)


def test_a_password_callable_that_fails_is_refused(own):
    def failing():
        raise KeyError("vault")

    error = refused("password= failed: KeyError", cert=own["cert"], key=encrypted(own["key"]), password=failing)
    assert isinstance(error.__cause__, KeyError)


def test_a_password_of_the_wrong_type_is_refused(own):
    refused("password= gave a int", cert=own["cert"], key=encrypted(own["key"]), password=lambda: 7)


@pytest.mark.parametrize("option", ["ca", "cert", "key"])
def test_a_missing_file_is_named(files, option):
    files[option].unlink()
    error = refused(f"{option}='.*{option}.pem' cannot be read: No such file or directory; give the path", **files)
    assert isinstance(error.__cause__, FileNotFoundError)


def test_a_directory_is_no_file(files, tmp_path):
    refused("cannot be read: Is a directory", **{**files, "ca": tmp_path})


@pytest.mark.parametrize("option", ["ca", "cert", "key"])
def test_a_file_without_what_it_should_hold_is_named(files, option):
    files[option].write_text("hello")
    refused(f"{option}=.*{option}.pem' holds no PEM", **files)


@pytest.mark.parametrize("option", ["ca", "cert", "key"])
def test_a_damaged_file_is_named(files, option):
    damaged = files[option].read_bytes().splitlines()
    files[option].write_bytes(b"\n".join([damaged[0], b"AAAA", damaged[-1]]))
    error = refused(f"{option}.pem.* damaged", **files)
    assert isinstance(error.__cause__, ssl.SSLError)


def test_a_file_that_vanishes_meanwhile_is_reported(files, monkeypatch):
    monkeypatch.setattr(certificates, "_content", lambda option, source: b"-----BEGIN CERTIFICATE PRIVATE KEY-----")
    files["ca"].unlink()
    refused("ca=", ca=files["ca"])


def test_a_certificate_without_its_key_is_refused(own):
    refused("cert=<PEM> holds no PEM private key: pass key=", cert=own["cert"])


def test_a_key_of_another_certificate_is_refused(authority, own):
    other = authority.issued("other.example")["key"]
    refused("key=<PEM> does not belong to cert=<PEM>: pass the pair", cert=own["cert"], key=other)


def test_a_key_without_certificate_is_refused(own):
    refused("key= was given without cert=", key=own["key"])


def test_a_password_without_certificate_is_refused():
    refused("password= was given without cert=", password="x")


def test_pem_as_a_str_is_refused_without_repeating_it(own):
    error = refused("cert= is PEM as a str.*pass it as bytes", cert=own["cert"].decode(), key=own["key"])
    assert own["cert"].decode()[40:60] not in str(error)


def test_what_is_neither_path_nor_pem_is_refused():
    refused("ca= is a int: pass the path of a PEM file, or PEM as bytes", ca=7)
    refused("is no path", ca="a\0b")


def test_contexts_are_strict(files):
    made = credentials(**files)
    for server_side in (True, False):
        context = made.context(server_side=server_side)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        for wanted in (ssl.OP_NO_TICKET, ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION):
            assert context.options & wanted
    assert made.context(server_side=False).check_hostname
    assert made.context(server_side=True).num_tickets == 0


def test_without_an_authority_a_client_believes_the_systems():
    made = Credentials(None, None, None, None, verify_clients=False, check_hostname=False)
    assert made.context(server_side=False).verify_mode == ssl.CERT_REQUIRED
    assert not made.context(server_side=False).check_hostname
    assert made.context(server_side=True).verify_mode == ssl.CERT_NONE


def test_a_context_is_made_once_while_nothing_changes(files):
    made = credentials(**files)
    assert made.context(server_side=True) is made.context(server_side=True)
    assert made.context(server_side=True) is not made.context(server_side=False)


def replace(file, content):
    """As those who renew certificates do it: the file is another one, whatever the clock's grain."""
    file.with_name("new").write_bytes(content)
    file.with_name("new").rename(file)


def test_renewed_files_are_loaded(files, authority):
    made = credentials(**files)
    before = made.context(server_side=True)
    renewed = authority.issued("localhost")
    replace(files["cert"], renewed["cert"])
    replace(files["key"], renewed["key"])
    assert made.context(server_side=True) is not before


def test_a_renewal_that_cannot_be_loaded_keeps_the_old_and_warns_once(files, authority, caplog):
    made = credentials(**files)
    before = made.context(server_side=True), made.context(server_side=False)
    renewed = authority.issued("localhost")
    replace(files["cert"], renewed["cert"])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert (made.context(server_side=True), made.context(server_side=False)) == before
    (record,) = caplog.records
    assert "renewed certificates are not usable, keeping those in use: key=" in record.getMessage()
    replace(files["key"], renewed["key"])
    assert made.context(server_side=True) not in before


def test_files_that_vanish_keep_the_old_in_use(files, caplog):
    made = credentials(**files)
    before = made.context(server_side=True)
    files["ca"].unlink()
    assert made.context(server_side=True) is before
    assert "cannot be read" in caplog.text


def test_files_that_are_bad_before_their_first_use_are_an_error(files):
    made = credentials(**files)
    files["key"].write_text("hello")
    with pytest.raises(ConfigError, match="holds no PEM private key"):
        made.context(server_side=True)


def test_a_source_is_shown_without_its_secrets(own):
    assert (shown(own["key"]), shown("a.pem"), shown(None)) == ("<PEM>", "'a.pem'", "None")
