"""A counter for each client, which only admin may set back; its tests are in test_counter.py."""

import erps_gevent as erps
from erps_gevent import ErrorReply, Reply


class Counter(erps.Server, identifier="counter", versions="~=1.0"):
    def init(self, start):
        self.count = start

    def handle_call(self, request, from_):
        match request:
            case ("add", int(n)):
                self.count += n
                self.push(("changed", self.count))
                return Reply(self.count)
            case "reset":
                if self.peer.common_name != "admin":
                    raise ErrorReply("forbidden", f"{self.peer} is not admin")
                self.count = 0
                return Reply(None)
        raise ErrorReply("unknown_request")


class CounterClient(erps.Client, identifier="counter", version="1.0.3"):
    def init(self, changed=print, lost=print):
        self.changed = changed
        self.lost = lost

    def add(self, n, **options):
        return self.call(("add", n), **options)

    def reset(self, **options):
        return self.call("reset", **options)

    def handle_push(self, message):
        match message:
            case ("changed", count):
                self.changed(count)

    def handle_disconnect(self, error):
        self.lost(error)
