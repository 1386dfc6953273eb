"""A counter for each client, over two-way TLS.

Once, in this directory: certificates for the server and for two clients.

    erps certs certs --server localhost,127.0.0.1 --client alice bob

Then the server; Ctrl-C or `kill` ends it:

    python server.py

and, in another terminal, a client:

    python client.py alice
"""

import signal

import gevent

import erps_gevent as erps
from erps_gevent import Reply


class Counter(erps.Server, identifier="counter", versions="~=1.0"):
    def init(self, start):
        self.count = start

    def handle_call(self, request, from_):
        match request:
            case ("add", int(n)):
                self.count += n
                self.push(("changed", self.count))
                return Reply(self.count)
        raise erps.ErrorReply("unknown_request")  # an answer: the server lives, the caller has it raised

    def handle_cast(self, request):
        match request:
            case "reset":
                self.count = 0


if __name__ == "__main__":
    tls = erps.Tls(ca="certs/ca.pem", cert="certs/localhost.pem", key="certs/localhost.key")
    daemon = erps.Daemon(("localhost", 4747), Counter, 0, transport=tls)
    for signum in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(signum, daemon.close)  # serve_forever then has the clients move, and returns
    daemon.start()
    print("the counter is at localhost:4747", flush=True)
    daemon.serve_forever()
