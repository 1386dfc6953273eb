"""What an OSError or an ssl error means: a word for programs, a sentence for people.

The word is `Disconnected.reason`:

    network                 dns  refused  unreachable  connect_timeout  handshake_timeout  reset  closed  timeout  lost
    what the peer is        not_tls  tls
    what the peer presents  certificate_expired  certificate_not_yet_valid  unknown_ca  hostname_mismatch
                            certificate_invalid  certificate_missing  refused_by_verify_peer
    what we present         certificate_refused

Those in LASTING stay until somebody changes a file or an option, so nothing is won by trying again soon.
"""

from __future__ import annotations

import errno
import ssl
from typing import Any

from erps_gevent.errors import Disconnected
from erps_gevent.transport.address import names_in, subject_of

LASTING = frozenset(
    {
        "not_tls",
        "tls",
        "certificate_expired",
        "certificate_not_yet_valid",
        "unknown_ca",
        "hostname_mismatch",
        "certificate_invalid",
        "certificate_missing",
        "refused_by_verify_peer",
        "certificate_refused",
    }
)

_ERRNO = {
    errno.ECONNREFUSED: ("refused", "connection refused: nothing listens there"),
    errno.ENETUNREACH: ("unreachable", "the network is unreachable"),
    errno.EHOSTUNREACH: ("unreachable", "the host is unreachable"),
    errno.ENETDOWN: ("unreachable", "the network is down"),
    errno.EADDRNOTAVAIL: ("unreachable", "no local address or port is free to reach it from"),
    errno.ENOENT: ("refused", "there is no such socket file: nothing listens there"),
    errno.EACCES: ("refused", "permission denied"),
    errno.ECONNRESET: ("reset", "the other end reset the connection"),
    errno.EPIPE: ("reset", "the other end no longer reads"),
    errno.ECONNABORTED: ("reset", "the connection was aborted"),
    errno.ETIMEDOUT: ("timeout", "the other end was silent for too long"),
    errno.EBADF: ("closed", "this end closed the connection"),
}

# X509_V_ERR_*, as SSLCertVerificationError.verify_code has them.
_VERIFY = {
    9: ("certificate_not_yet_valid", "is not yet valid; compare the clocks of both machines"),
    10: ("certificate_expired", "has expired; it must be renewed, or a clock is wrong"),
    23: ("certificate_invalid", "was revoked"),
    26: ("certificate_invalid", "was not issued for this purpose (extendedKeyUsage)"),
}
_UNKNOWN_CA = {2, 18, 19, 20, 21, 24, 27}
_WRONG_NAME = {62, 63, 64}

# Alerts by which the other end says what it thinks of our certificate (RFC 8446, 6.2).
_ALERTS = {
    "UNKNOWN_CA": "it was issued by an authority that the {peer}'s ca= does not hold",
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_REVOKED": "it was revoked",
    "BAD_CERTIFICATE": "it is not valid there (a name that it does not have, not yet valid, or damaged)",
    "UNSUPPORTED_CERTIFICATE": "it is not of a kind or purpose that the {peer} takes",
    "CERTIFICATE_UNKNOWN": "it could not be judged",
    "ACCESS_DENIED": "it is valid, but may not come in",
}
_REQUIRED = "it requires one and none was given; pass cert= and key= to Tls(...)"


def why(exc: OSError) -> tuple[str, str]:
    """The word and the sentence for what the kernel said."""
    word, sentence = _ERRNO.get(exc.errno or 0, ("lost", exc.strerror or str(exc)))
    return word, sentence


def lost(exc: OSError, doing: str) -> Disconnected:
    """The error for a line that failed while it was up; to be raised from `exc`."""
    word, sentence = why(exc)
    return Disconnected(f"lost while {doing}: {sentence}", reason=word, sent=True)


def tls_lost(exc: ssl.SSLError, peer: str, presented: bool) -> Disconnected:
    """The error for a line on which TLS failed after the handshake.

    peer:      "server" or "client": what the other end is.
    presented: whether this end has a certificate to present.
    """
    word, sentence = _tls(exc, peer, presented)
    return Disconnected(sentence, reason=word, sent=True)


def handshake_failed(
    exc: ssl.SSLError, peer: str, where: object, *, presented: bool, name: str | None, seen: dict[str, Any] | None
) -> Disconnected:
    """The error for a TLS handshake that failed.

    peer:      "server" or "client": what the other end is.
    where:     its address.
    presented: whether this end has a certificate to present.
    name:      what the peer's certificate was checked for.
    seen:      the certificate that the peer presented, if it is known.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        word, sentence = _unverified(exc, peer, where, name, seen)
    else:
        word, sentence = _tls(exc, peer, presented)
        sentence = f"the TLS handshake with {where} failed: {sentence}"
    return Disconnected(sentence, reason=word)


def _unverified(
    exc: ssl.SSLCertVerificationError, peer: str, where: object, name: str | None, seen: dict[str, Any] | None
) -> tuple[str, str]:
    whose = f"the certificate of the {peer} {where}"
    if seen:
        whose += f" ({subject_of(seen)})"
    code = exc.verify_code
    if code in _WRONG_NAME:
        has = f"it is for {', '.join(names_in(seen)) or 'no name at all'}" if seen else "it has other names"
        return (
            "hostname_mismatch",
            f"{whose} is not for {name!r}: {has}; dial it by such a name, or pass server_hostname= to Tls(...)",
        )
    if code in _UNKNOWN_CA:
        remedy = "pass the certificate of the authority that issued it"
        return "unknown_ca", f"{whose} was issued by an authority that is not in ca= ({exc.verify_message}); {remedy}"
    word, sentence = _VERIFY.get(code, ("certificate_invalid", f"is not valid: {exc.verify_message}"))
    return word, f"{whose} {sentence}"


def _tls(exc: ssl.SSLError, peer: str, presented: bool) -> tuple[str, str]:
    code = (exc.reason or str(exc)).upper().replace(" ", "_")
    alert = code.partition("_ALERT_")[2]
    if alert == "CERTIFICATE_REQUIRED" or (alert == "HANDSHAKE_FAILURE" and not presented):
        return "certificate_refused", f"the {peer} refused our certificate: {_REQUIRED}"
    if alert in _ALERTS:
        return "certificate_refused", f"the {peer} refused our certificate: {_ALERTS[alert].format(peer=peer)}"
    if code == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "certificate_missing", f"the {peer} presented no certificate; it needs cert= and key= in its Tls(...)"
    if alert == "PROTOCOL_VERSION" or code in ("UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"):
        return "tls", f"the {peer} and we have no TLS version in common; TLS 1.2 is the least"
    if alert == "HANDSHAKE_FAILURE" or code == "NO_SHARED_CIPHER":
        return "tls", f"the {peer} and we have no cipher in common, or it refused our certificate ({exc})"
    return "tls", f"TLS with the {peer} failed: {exc.reason or exc}"
