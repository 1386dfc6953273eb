"""Bytes and peers, no packets: how two ends reach each other, and who is there.

    address.py        where: (host, port), a unix socket path, a URL; and Peer: who answered there
    reasons.py        what an OSError or an ssl error means, as a sentence that says what to do
    sockets.py        names resolved, sockets connected, tuned and bound, within a deadline
    tcp.py            Stream: one connected line, without blocking; Tcp(); what every transport offers
    certificates.py   files or PEM into SSLContexts, checked early and renewed from disk
    tls_stream.py     Stream under TLS, over memory BIOs, and its handshake
    tls.py            Tls() and OneWayTls()
    memory.py         Memory(): lines inside one Python process, for tests

This is the only place where OSError and ssl errors are caught. Each is translated, with its cause, into the tree of
`erps_gevent.errors`.
"""
