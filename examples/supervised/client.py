"""A guest, who types `who`, `ring`, `break` (the bell) or `crash` (what serves this guest); Ctrl-D leaves.

    python client.py alice

The server has to run first; the docstring of server.py says how.
"""

import sys

import erps_gevent as erps


class Guest(erps.Client, identifier="house", version="1.0.0"):
    def init(self, name):
        self.name = name

    def handle_connect(self, peer):
        """At first, and after each healing: every line leads to a new host, which knows nothing of the one before."""
        try:
            self.show("in the house, with", *self.call(("enter", self.name)))
        except erps.ErrorReply as refusal:
            self.show("not in the house:", refusal)
            return erps.Stop(erps.Shutdown("refused"))

    def handle_disconnect(self, error):
        self.show("out of the house:", error)

    def handle_push(self, message):
        self.show(*message)

    def show(self, *words):
        print("--", *words, flush=True)


if __name__ == "__main__":
    with Guest("./house.sock", sys.argv[1], transport=erps.Tcp()) as guest:
        try:
            for line in sys.stdin:
                if line.strip() == "who":
                    print("here are", *guest.call("who", wait=True), flush=True)
                else:
                    guest.cast(line.strip(), wait=True)  # while the line heals, wait for it
        except erps.Disconnected as error:
            sys.exit(f"-- {error}")
