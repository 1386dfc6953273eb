"""The server process that the stress tests call, stop, freeze and kill: `python target.py PORT WIRE CERTS`."""

from __future__ import annotations

import signal
import ssl
import sys

import gevent

import erps_gevent as erps
from erps_gevent import NoReply, Reply

EXECUTED: dict[object, int] = {}


class Target(erps.Server, identifier="target"):
    def handle_call(self, request, from_):
        match request:
            case ("echo", value):
                return Reply(value)
            case ("execute", token):
                EXECUTED[token] = EXECUTED.get(token, 0) + 1
                return Reply(token)
            case ("sleep", seconds):
                gevent.sleep(seconds)
                return Reply("slept")
            case ("later", seconds, value):
                return self.defer(from_, lambda: gevent.sleep(seconds) or value)
            case ("size", data):
                return Reply(len(data))
            case "silence":
                return NoReply()
            case "executed":
                return Reply(sum(EXECUTED.values()))

    def handle_cast(self, request):
        EXECUTED[request] = EXECUTED.get(request, 0) + 1


def server_transport(wire: str, directory: str) -> erps.Tcp | erps.Tls:
    """What the daemon uses for "tcp", "tls12" or "tls13"."""
    if wire == "tcp":
        return erps.Tcp()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(f"{directory}/ca.pem")
    context.load_cert_chain(f"{directory}/server.pem", f"{directory}/server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    version = ssl.TLSVersion.TLSv1_2 if wire == "tls12" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = version
    return erps.Tls(context=context)


def client_transport(wire: str, directory: str) -> erps.Tcp | erps.Tls:
    """What its clients use."""
    if wire == "tcp":
        return erps.Tcp()
    return erps.Tls(ca=f"{directory}/ca.pem", cert=f"{directory}/alice.pem", key=f"{directory}/alice.key")


def main(port: str, wire: str, directory: str) -> None:
    daemon = erps.Daemon(("127.0.0.1", int(port)), Target, transport=server_transport(wire, directory))
    daemon.start()
    handler = gevent.signal_handler(signal.SIGTERM, daemon.stop)
    print(daemon.server_port, flush=True)
    daemon.serve_forever()
    handler.cancel()


if __name__ == "__main__":
    main(*sys.argv[1:])
