"""What OpenSSL and the kernel say is translated for every code that is known, and still told for those that are not."""

from __future__ import annotations

import errno
import pickle
import ssl

import pytest

from erps_gevent.transport.reasons import LASTING, handshake_failed, lost, tls_lost, why


def tls_error(reason=None, text=""):
    error = ssl.SSLError(1, text or f"[SSL: {reason}] {reason}")
    error.reason = reason
    return error


def unverified(code, message="some reason"):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    error.verify_code = code
    error.verify_message = message
    return error


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (errno.ETIMEDOUT, "timeout"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.EPIPE, "reset"),
        (errno.EACCES, "refused"),
        (errno.EBADF, "closed"),
        (errno.EIO, "lost"),
    ],
)
def test_every_network_error_has_a_word(code, word):
    assert why(OSError(code, "text"))[0] == word


def test_an_unknown_error_keeps_its_own_text():
    assert why(OSError(errno.EIO, "Input/output error")) == ("lost", "Input/output error")
    assert why(OSError("odd")) == ("lost", "odd")


def test_a_lost_line_may_have_carried_the_request():
    error = lost(OSError(errno.ETIMEDOUT, "x"), "reading")
    assert (error.sent, error.reason) == (True, "timeout")
    assert str(error) == "lost while reading: the other end was silent for too long"
    assert pickle.loads(pickle.dumps(error)).reason == "timeout"


ALERTS = [
    ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate_refused", "it requires one and none was given; pass cert="),
    ("TLSV1_ALERT_UNKNOWN_CA", "certificate_refused", "an authority that the server's ca= does not hold"),
    ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "certificate_refused", "it has expired"),
    ("SSLV3_ALERT_CERTIFICATE_REVOKED", "certificate_refused", "it was revoked"),
    ("SSLV3_ALERT_BAD_CERTIFICATE", "certificate_refused", "it is not valid there"),
    ("SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "certificate_refused", "not of a kind or purpose that the server takes"),
    ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "certificate_refused", "it could not be judged"),
    ("TLSV1_ALERT_ACCESS_DENIED", "certificate_refused", "it is valid, but may not come in"),
    ("TLSV1_ALERT_PROTOCOL_VERSION", "tls", "no TLS version in common"),
    ("SSLV3_ALERT_HANDSHAKE_FAILURE", "tls", "no cipher in common, or it refused our certificate"),
    ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "tls", "TLS with the server failed: DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
]


@pytest.mark.parametrize(("reason", "word", "text"), ALERTS)
def test_every_alert_says_what_it_means(reason, word, text):
    error = tls_lost(tls_error(reason), "server", True)
    assert error.reason == word
    assert text in str(error)
    assert error.sent


def test_an_alert_that_python_has_no_name_for_is_read_from_its_text():
    error = tls_lost(tls_error(None, "[SSL] tlsv13 alert certificate required"), "server", False)
    assert error.reason == "certificate_refused"


def test_a_failed_handshake_surely_carried_no_request():
    error = handshake_failed(tls_error("UNKNOWN"), "server", "h:1", presented=True, name="h", seen=None)
    assert not error.sent
    assert str(error) == "the TLS handshake with h:1 failed: TLS with the server failed: UNKNOWN"


@pytest.mark.parametrize(
    ("code", "word", "text"),
    [
        (26, "certificate_invalid", "was not issued for this purpose"),
        (23, "certificate_invalid", "was revoked"),
        (7, "certificate_invalid", "is not valid: some reason"),
        (18, "unknown_ca", "was issued by an authority that is not in ca= (some reason)"),
        (62, "hostname_mismatch", "is not for 'h': it has other names; dial it"),
    ],
)
def test_every_fault_of_a_certificate_has_a_word(code, word, text):
    error = handshake_failed(unverified(code), "server", "h:1", presented=True, name="h", seen=None)
    assert error.reason == word
    assert word in LASTING
    assert f"the certificate of the server h:1 {text}" in str(error)


def test_a_certificate_without_names_is_described_as_such():
    seen = {"subject": ((("commonName", "h"),),)}
    error = handshake_failed(unverified(62), "server", "h:1", presented=True, name="h", seen=seen)
    assert "the server h:1 (CN=h) is not for 'h': it is for no name at all" in str(error)


def test_waiting_does_not_mend_what_is_lasting():
    assert "refused" not in LASTING
    assert "handshake_timeout" not in LASTING
