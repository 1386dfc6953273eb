"""Who may talk to whom: each way in which a certificate, an authority or a port can be wrong is named, on both ends."""

from __future__ import annotations

import ssl
import struct
from datetime import datetime, timedelta, timezone
from time import monotonic

import gevent
import pytest
from gevent import socket as green
from gevent import ssl as green_ssl
from gevent.monkey import get_original
from support import MS
from transport.lines import KINDS, PATIENCE, VERSIONS, limited, receive, send

from erps_gevent.errors import ConfigError, Disconnected
from erps_gevent.transport import sockets
from erps_gevent.transport.address import Address
from erps_gevent.transport.certificates import load_own
from erps_gevent.transport.tcp import Tcp
from erps_gevent.transport.tls import OneWayTls, PlaintextPeer, Tls

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
EXPIRED = {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}
NOT_YET = {"not_before": NOW + DAY, "not_after": NOW + 9 * DAY}


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def meet(place, ends):
    """Let a client meet a server: what each of them came to, a stream or an error.

    A client whose handshake went well says hello and listens, since TLS 1.3 tells it only then what the server thinks.
    """

    def meet(server, client, where=None):
        def heard():
            stream = ends.keep(client.connect(where or place.address, PATIENCE))
            try:
                send(stream, b"hello")
                receive(stream)
                stream.close()
                return stream
            except Disconnected as exc:
                stream.close()
                return exc

        accepting = place.accepting(server)
        try:
            far = None
            hearing = gevent.spawn(attempt, heard)
            far = accepting.get(timeout=PATIENCE)
            if not isinstance(far, Exception):
                ends.keep(far).shutdown_write()
            near = hearing.get(timeout=PATIENCE)
        finally:
            accepting.kill()
        return near, far

    return meet


def attempt(function):
    try:
        return function()
    except Exception as exc:  # noqa: BLE001, the test judges it
        return exc


def said(error, reason, *parts, sent=False):
    """The error is a Disconnected that has this reason and says all of this, from a chained cause."""
    assert isinstance(error, Disconnected), error
    for part in parts:
        assert part in str(error)
    assert error.reason == reason
    assert error.sent is sent
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["one way", *VERSIONS])
def test_both_ends_agree(places, ends, pairs, kind, name):
    near, far = ends.line(places(kind), *pairs[name])
    send(near, b"ping")
    assert receive(far, 4) == b"ping"
    send(far, b"pong")
    assert receive(near, 4) == b"pong"
    assert near.peer.tls_version == far.peer.tls_version == (name if name in VERSIONS else "TLSv1.3")


def test_each_end_knows_the_others_certificate(place, ends, server_tls, client_tls):
    near, far = ends.line(place, server_tls, client_tls)
    assert near.peer.sans == ("localhost", "127.0.0.1", "::1")
    assert near.peer.subject.startswith("CN=server,")
    assert far.peer.sans == ("client-1",)
    assert far.peer.subject.startswith("CN=client-1,")
    assert far.peer.subject.endswith("O=Exa\\,mple")
    assert ssl.DER_cert_to_PEM_cert(far.peer.certificate_der).startswith("-----BEGIN CERTIFICATE")
    assert str(far.peer).endswith(f" at 127.0.0.1:{far.peer.address[1]}")


def test_one_way_tls_knows_nothing_of_the_client(place, ends, pairs):
    near, far = ends.line(place, *pairs["one way"])
    assert near.peer.sans == ("localhost",)
    assert far.peer.certificate is None
    assert far.peer.certificate_der is None
    assert far.peer.subject is None


@pytest.mark.parametrize(("kind", "host"), [("ipv4", "127.0.0.1"), ("ipv6", "::1")])
def test_an_address_in_figures_is_compared_with_the_certificate(places, ends, server_tls, client_tls, kind, host):
    near, _ = ends.line(places(kind), server_tls, client_tls)
    assert near.peer.address[0] == host
    assert host in near.peer.sans


def test_a_server_under_another_name_is_refused_with_its_names(meet, authority, client_tls, version):
    near, far = meet(limited(Renamed(authority, "other.example", "10.0.0.1"), version, True), client_tls)
    remedy = "dial it by such a name, or pass server_hostname= to Tls(...)"
    assert said(near, "hostname_mismatch", "is not for '127.0.0.1'", "it is for other.example, 10.0.0.1", remedy)
    assert isinstance(near.__cause__, ssl.SSLCertVerificationError)
    assert said(far, "certificate_refused", "the client refused our certificate", "a name that it does not have")


class Renamed:
    """An authority whose `limited` transports have these names."""

    def __init__(self, authority, *names, **options):
        self.pem = authority.pem
        self.authority = authority
        self.names = names
        self.options = options

    def issued(self, *ignored):
        return self.authority.issued(*self.names, **self.options)


def test_server_hostname_overrides_the_host(place, ends, authority, client_tls):
    server = authority.tls("counter.example")
    client = authority.tls("client", server_hostname="counter.example")
    assert ends.line(place, server, client)[0].peer.sans == ("counter.example",)


def test_check_hostname_false_takes_any_name(place, ends, authority):
    near, _ = ends.line(place, authority.tls("other.example"), authority.tls("client", check_hostname=False))
    assert near.peer.sans == ("other.example",)


@pytest.mark.parametrize(
    ("dates", "reason", "text"),
    [
        (EXPIRED, "certificate_expired", "has expired; it must be renewed"),
        (NOT_YET, "certificate_not_yet_valid", "is not yet valid; compare the clocks"),
    ],
)
def test_a_server_certificate_out_of_its_time_is_named(meet, authority, client_tls, version, dates, reason, text):
    near, far = meet(limited(Renamed(authority, "127.0.0.1", **dates), version, True), client_tls)
    assert said(near, reason, "the certificate of the server 127.0.0.1:", text)
    assert isinstance(near.__cause__, ssl.SSLCertVerificationError)
    assert said(far, "certificate_refused", "the client refused our certificate")


@pytest.mark.parametrize(
    ("dates", "reason", "text"),
    [
        (EXPIRED, "certificate_expired", "has expired"),
        (NOT_YET, "certificate_not_yet_valid", "is not yet valid"),
    ],
)
def test_a_client_certificate_out_of_its_time_is_named(meet, authority, server_tls, version, dates, reason, text):
    near, far = meet(server_tls, limited(Renamed(authority, "localhost", **dates), version, False))
    assert said(far, reason, "the certificate of the client", text)
    assert said(near, "certificate_refused", "the server refused our certificate", sent=version == "TLSv1.3")
    assert isinstance(near.__cause__, ssl.SSLError)


def test_a_server_of_another_authority_is_named(meet, stranger, client_tls, version):
    near, far = meet(limited(stranger, version, True), client_tls)
    assert said(
        near, "unknown_ca", "issued by an authority that is not in ca=", "pass the certificate of the authority"
    )
    assert isinstance(near.__cause__, ssl.SSLCertVerificationError)
    assert said(far, "certificate_refused", "an authority that the client's ca= does not hold")


def test_a_client_of_another_authority_is_named(meet, authority, stranger, server_tls, version):
    impostor = limited(Mixed(authority, stranger), version, False)
    near, far = meet(server_tls, impostor)
    assert said(far, "unknown_ca", "the certificate of the client", "is not in ca=")
    text = "the server refused our certificate: it was issued by an authority that the server's ca= does not hold"
    assert said(near, "certificate_refused", text, sent=version == "TLSv1.3")


class Mixed:
    """Believes one authority and presents a certificate of another."""

    def __init__(self, believed, issuing):
        self.pem = believed.pem
        self.issued = issuing.issued


def test_a_client_without_certificate_is_named(meet, authority, server_tls, version):
    context = limited(authority, version, False, presenting=False)._context
    near, far = meet(server_tls, OneWayTls(context=context, server_hostname="localhost"))
    assert said(far, "certificate_missing", "the client presented no certificate; it needs cert= and key=")
    assert isinstance(far.__cause__, ssl.SSLError)
    assert near.reason in ("certificate_refused", "tls")


def test_a_client_without_certificate_is_told_what_to_pass(meet, authority, server_tls):
    near, _ = meet(server_tls, OneWayTls(ca=authority.pem))
    remedy = "it requires one and none was given; pass cert= and key= to Tls(...)"
    assert said(near, "certificate_refused", f"the server refused our certificate: {remedy}", sent=True)


def test_a_client_without_certificate_is_told_by_tls_1_2_too(meet, authority):
    near, _ = meet(limited(authority, "TLSv1.2", True), OneWayTls(ca=authority.pem, server_hostname="localhost"))
    assert said(near, "certificate_refused", "it requires one and none was given; pass cert= and key= to Tls(...)")


def test_versions_without_overlap_are_named(meet, authority, client_tls):
    context = limited(authority, "TLSv1.3", True)._context
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    near, far = meet(Tls(context=context), limited(authority, "TLSv1.2", False))
    for error in (near, far):
        assert said(error, "tls", "no TLS version in common; TLS 1.2 is the least")


def test_ciphers_without_overlap_are_named(meet, authority):
    server, client = limited(authority, "TLSv1.2", True), limited(authority, "TLSv1.2", False)
    server._context.set_ciphers("ECDHE+AES128")
    client._context.set_ciphers("ECDHE+AES256")
    near, far = meet(server, client)
    for error in (near, far):
        assert said(error, "tls", "no cipher in common")


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize(("answer", "text"), [(None, "it said no"), (ValueError("not you"), "raised ValueError")])
def test_verify_peer_refuses_on_either_side(meet, authority, end, answer, text, version):
    asked = []

    def verify_peer(certificate, address):
        asked.append((certificate["subjectAltName"], address[0]))
        if answer is not None:
            raise answer
        return answer

    transports = [limited(authority, version, True), limited(authority, version, False)]
    transports[end].verify_peer = verify_peer
    outcome = meet(*transports)
    assert said(outcome[1 - end], "refused_by_verify_peer", "verify_peer refused", text)
    assert outcome[1 - end].__cause__ is answer
    assert asked == [((("DNS", "localhost"), ("IP Address", "127.0.0.1")), "127.0.0.1")]


def test_verify_peer_that_takes_the_peer_lets_it_in(place, ends, authority):
    server = authority.tls("127.0.0.1", verify_peer=lambda certificate, address: "client" in str(certificate))
    assert ends.line(place, server, authority.tls("client"))[1].peer.sans == ("client",)


def test_verify_peer_is_bounded_by_the_timeout(place, authority, client_tls):
    server = authority.tls("127.0.0.1", verify_peer=lambda certificate, address: gevent.sleep(PATIENCE))
    accepting = place.accepting(server, 100 * MS)
    client_tls.connect(place.address, PATIENCE).close()
    assert said(accepting.get(timeout=PATIENCE), "refused_by_verify_peer", "it did not answer in time")


def test_a_silent_client_is_dropped_in_time(place, server_tls):
    accepting = place.accepting(server_tls, 20 * MS)
    with place.raw() as silent:
        failure = accepting.get(timeout=PATIENCE)
        assert silent.recv(1) == b""
    assert said(failure, "handshake_timeout", "timed out in the TLS handshake with 127.0.0.1:", "not done in 0.02 s")


def test_a_client_that_trickles_is_dropped_in_time(place, server_tls):
    accepting = place.accepting(server_tls, 50 * MS)
    with place.raw() as slow:
        began = monotonic()
        with pytest.raises(OSError):
            while monotonic() - began < PATIENCE:
                slow.sendall(b"\x16")
                gevent.sleep(2 * MS)
    failure = accepting.get(timeout=PATIENCE)
    assert isinstance(failure, Disconnected)


def test_a_client_that_speaks_too_late_is_dropped(place, server_tls):
    with place.raw() as late:
        late.sendall(b"\x16\x03\x01")
        failure = place.accepting(server_tls, 0.0).get(timeout=PATIENCE)
    assert said(failure, "handshake_timeout", "not done in 0 s")


def test_a_silent_server_is_given_up_in_time(place, client_tls):
    began = monotonic()
    with pytest.raises(Disconnected) as caught:
        client_tls.connect(place.address, 20 * MS)
    assert said(caught.value, "handshake_timeout", "not done in 0.02 s; does that port speak TLS?")
    assert monotonic() - began < PATIENCE / 2


def answering(place, data, rude=False):
    """A server that reads something, answers with `data` and closes."""

    def serve():
        green.wait_read(place.listener.fileno())
        sock, _ = place.listener.accept()
        with sock:
            if not rude:
                sock.recv(65536)
            else:
                green.wait_read(sock.fileno())
            sock.sendall(data)

    return gevent.spawn(serve)


def test_a_server_that_hangs_up_says_so(place, client_tls):
    answering(place, b"")
    with pytest.raises(Disconnected) as caught:
        client_tls.connect(place.address, PATIENCE)
    assert said(caught.value, "closed", "closed the connection during the TLS handshake; does that port speak TLS")


def test_a_server_that_resets_says_so(place, client_tls):
    answering(place, b"", rude=True)
    with pytest.raises(Disconnected) as caught:
        client_tls.connect(place.address, PATIENCE)
    assert said(caught.value, "reset", "reset the connection during the TLS handshake; does that port speak TLS")
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_a_server_that_speaks_something_else_is_named(place, client_tls):
    answering(place, b"HTTP/1.1 400 Bad Request")
    with pytest.raises(Disconnected) as caught:
        client_tls.connect(place.address, PATIENCE)
    assert said(caught.value, "not_tls", "does not speak TLS: it began with b'HTTP/1.1 400 Bad'")


def test_a_server_that_speaks_erps_in_clear_is_named(place, client_tls):
    answering(place, b"erps\0\0\0\0\0")
    with pytest.raises(Disconnected) as caught:
        client_tls.connect(place.address, PATIENCE)
    remedy = "use transport=Tcp() here, or give the server Tls(...)"
    assert said(caught.value, "not_tls", f"does not speak TLS but erps in clear: {remedy}")


def test_a_tls_client_at_a_plain_server_gives_it_bytes_that_are_no_packet(place, ends, client_tls):
    accepting = place.accepting(Tcp())
    connecting = gevent.spawn(attempt, lambda: client_tls.connect(place.address, PATIENCE))
    far = ends.keep(accepting.get(timeout=PATIENCE))
    assert receive(far, 3).startswith(b"\x16\x03\x01")
    far.close()
    assert connecting.get(timeout=PATIENCE).reason in ("reset", "closed")


def test_a_client_that_speaks_erps_in_clear_can_be_answered(place, ends, server_tls):
    accepting = place.accepting(server_tls)
    near = ends.keep(Tcp().connect(place.address, PATIENCE))
    send(near, b"erps\0\0\0\0\x10hello")
    failure = accepting.get(timeout=PATIENCE)
    assert isinstance(failure, PlaintextPeer)
    assert "spoke erps in clear to a TLS port: it must use Tls(...)" in str(failure)
    send(failure.stream, b"this port speaks TLS")
    failure.stream.close()
    assert receive(near, 20) == b"this port speaks TLS"


def test_erps_in_clear_is_known_by_its_first_bytes_however_they_come(place, server_tls, trickle):
    accepting = place.accepting(server_tls)
    with place.raw() as client:
        client.sendall(b"erps\0\0\0\0\0")
        failure = accepting.get(timeout=PATIENCE)
    assert isinstance(failure, PlaintextPeer)
    failure.stream.close()


def test_a_client_that_resets_after_nonsense_is_reported_for_the_nonsense(place, server_tls):
    accepting = place.accepting(server_tls)
    with place.raw() as client:
        client.setsockopt(green.SOL_SOCKET, green.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"\x16\x03\x01\x00\x05hello")
    assert said(accepting.get(timeout=PATIENCE), "tls", "the TLS handshake with 127.0.0.1:")


@pytest.mark.parametrize(
    ("failures", "reason"),
    [([BlockingIOError()], None), ([BlockingIOError()] * 1000, "handshake_timeout"), ([BrokenPipeError()], "reset")],
)
def test_a_handshake_writes_when_there_is_room(place, ends, client_tls, server_tls, monkeypatch, failures, reason):
    left = list(failures)

    class Socket(sockets.PlainSocket):
        def send(self, data):
            if left:
                raise left.pop()
            return super().send(data)

    def wait(sock, writable, seconds):
        return len(left) < 900 if writable else original(sock, writable, seconds)

    original = sockets.wait
    monkeypatch.setattr("erps_gevent.transport.tls_stream.wait", wait)
    accepting = place.accepting(server_tls)
    monkeypatch.setattr(sockets, "PlainSocket", Socket)
    outcome = attempt(lambda: client_tls.connect(place.address, PATIENCE))
    if reason is None:
        ends.keep(outcome)
        ends.keep(accepting.get(timeout=PATIENCE))
    else:
        assert said(outcome, reason)


def test_a_client_that_hangs_up_says_so(place, server_tls):
    accepting = place.accepting(server_tls)
    place.raw().close()
    assert said(
        accepting.get(timeout=PATIENCE), "closed", "closed the connection during the TLS handshake; it went away"
    )


def test_a_client_that_speaks_something_else_is_named(place, server_tls):
    accepting = place.accepting(server_tls)
    with place.raw() as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert said(accepting.get(timeout=PATIENCE), "not_tls", "does not speak TLS: it began with b'GET / HTTP/1.1")


def test_a_unix_socket_needs_the_name_to_compare(places, authority, client_tls):
    place = places("unix")
    with pytest.raises(ConfigError, match=r"cannot be compared with the path '.*': pass server_hostname="):
        client_tls.connect(place.address, PATIENCE)
    assert client_tls.check_target(Address("h", 1)) is None
    assert authority.tls("c", server_hostname="x").check_target(place.address) is None
    assert authority.tls("c", check_hostname=False).check_target(place.address) is None


@pytest.mark.parametrize("module", ["stdlib", "gevent"])
def test_a_ready_context_is_used(place, ends, authority, server_tls, module):
    kind = get_original("ssl", "SSLContext") if module == "stdlib" else green_ssl.SSLContext
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.pem.decode())
    load_own(context, *authority.issued("ready").values(), None)
    near, far = ends.line(place, server_tls, Tls(context=context))
    assert far.peer.sans == ("ready",)
    assert near.peer.sans[0] == "localhost"


@pytest.mark.parametrize("module", ["stdlib", "gevent"])
def test_a_ready_context_may_choose_by_the_name_that_is_dialled(place, ends, authority, module):
    kind = get_original("ssl", "SSLContext") if module == "stdlib" else green_ssl.SSLContext
    names = []
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    load_own(context, *authority.issued("localhost").values(), None)
    context.sni_callback = lambda tls, name, ignored: names.append(name)
    ends.line(place, OneWayTls(context=context), authority.tls("client", server_hostname="localhost"))
    assert names == ["localhost"]


@pytest.mark.parametrize("extra", [{"ca": b"x"}, {"cert": b"x"}, {"key": b"x"}, {"password": "x"}])
def test_a_ready_context_excludes_what_it_already_has(extra):
    with pytest.raises(ConfigError, match="a ready context has these already, so pass one or the other"):
        OneWayTls(context=ssl.create_default_context(), **extra)
    with pytest.raises(ConfigError, match="or check_hostname="):
        OneWayTls(context=ssl.create_default_context(), check_hostname=False)


def test_a_ready_context_must_be_one():
    with pytest.raises(ConfigError, match=r"context='x' is not an ssl\.SSLContext"):
        Tls(context="x")


def test_a_ready_context_that_requires_nothing_is_not_two_way():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with pytest.raises(
        ConfigError, match=r"Tls is two-way: set context\.verify_mode = ssl\.CERT_REQUIRED, or use OneWay"
    ):
        Tls(context=context)
    assert repr(OneWayTls(context=context)) == "OneWayTls(context=...)"


def test_a_ready_context_of_the_wrong_side_is_refused(place, authority):
    with pytest.raises(ConfigError, match="was made with PROTOCOL_TLS_SERVER, but this end is the client"):
        limited(authority, "TLSv1.3", True).connect(place.address, PATIENCE)
    accepting = place.accepting(limited(authority, "TLSv1.3", False))
    with place.raw() as client:
        failure = accepting.get(timeout=PATIENCE)
        assert client.recv(1) == b""
    assert isinstance(failure, ConfigError)
    assert "was made with PROTOCOL_TLS_CLIENT, but this end is the server" in str(failure)


def test_two_way_tls_needs_a_certificate_and_an_authority(authority):
    with pytest.raises(ConfigError, match="this end needs a certificate: pass cert= and key=, or use OneWayTls"):
        Tls(ca=authority.pem)
    with pytest.raises(ConfigError, match="no authority to believe: pass ca="):
        Tls(**authority.issued("x"))


def test_a_server_needs_a_certificate_in_any_case(place, authority):
    transport = OneWayTls(ca=authority.pem)
    with pytest.raises(ConfigError, match=r"OneWayTls\(ca=<PEM>\) has no certificate to present.*pass cert= and key="):
        transport.check_listener()
    accepting = place.accepting(transport)
    place.raw().close()
    assert isinstance(accepting.get(timeout=PATIENCE), ConfigError)


@pytest.mark.parametrize("name", ["", ".x", 7, "a" * 64])
def test_a_server_hostname_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="is not a host name"):
        OneWayTls(server_hostname=name)


def test_verify_peer_must_be_callable():
    with pytest.raises(ConfigError, match="verify_peer=True is not callable: pass a function"):
        OneWayTls(verify_peer=True)


def test_options_are_not_shown_with_their_secrets(certs):
    transport = Tls(**certs.identity("server"), password="secret")
    assert repr(transport) == f"Tls(ca={certs.ca!r}, cert={certs.cert('server')!r}, key={certs.key('server')!r})"


def test_a_host_with_scope_or_dot_is_compared_without(place, authority, ends, server_tls, resolver_of_dots):
    near, _ = ends.line(place, server_tls, authority.tls("c"), at=resolver_of_dots(place))
    assert near.peer.sans[0] == "localhost"


@pytest.fixture
def resolver_of_dots(monkeypatch):
    def make(place):
        found = [(green.AF_INET, green.SOCK_STREAM, 6, "", ("127.0.0.1", place.address.port))]
        monkeypatch.setattr(sockets, "getaddrinfo", lambda *args: found)
        return Address("localhost.", place.address.port)

    return make


def test_renewed_certificates_reach_new_handshakes_and_leave_old_lines_alone(
    place, ends, authority, client_tls, tmp_path
):
    def renew(*names):
        for name, content in authority.issued(*names).items():
            (tmp_path / "new").write_bytes(content)
            (tmp_path / "new").rename(tmp_path / name)

    renew("old.example", "127.0.0.1")
    server = Tls(ca=authority.pem, cert=tmp_path / "cert", key=tmp_path / "key")
    first, far = ends.line(place, server, client_tls)
    renew("new.example", "127.0.0.1")
    second, _ = ends.line(place, server, client_tls)
    assert (first.peer.sans[0], second.peer.sans[0]) == ("old.example", "new.example")
    send(far, b"still here")
    assert receive(first, 10) == b"still here"
