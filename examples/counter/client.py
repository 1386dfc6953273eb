"""A client of the counter.

    python client.py alice

The server has to run first; the docstring of server.py says how.
"""

import sys

import erps_gevent as erps


class CounterClient(erps.Client, identifier="counter", version="1.0.3"):
    def add(self, n, **options):
        return self.call(("add", n), **options)

    def reset(self):
        self.cast("reset")

    def handle_push(self, message):
        match message:
            case ("changed", count):
                print("the server says: the count is", count, flush=True)


if __name__ == "__main__":
    name = sys.argv[1]
    tls = erps.Tls(ca="certs/ca.pem", cert=f"certs/{name}.pem", key=f"certs/{name}.key")
    with CounterClient(("localhost", 4747), transport=tls) as counter:
        print("3 make", counter.add(3, timeout=1.0))
        print("4 more make", counter.add(4, timeout=1.0))
        counter.reset()
        print("after a reset, 1 makes", counter.add(1, timeout=1.0))
        try:
            counter.call("nonsense")
        except erps.ErrorReply as refusal:
            print("the server refused:", refusal.kind)
