"""Somebody in the room.

    python client.py alice

The server has to run first; the docstring of server.py says how.
"""

import sys

import erps_gevent as erps


class ChatClient(erps.Client, identifier="chat", version="1.0.0"):
    def say(self, text):
        self.cast(("say", text), wait=True)  # while the server restarts, wait for it

    def handle_connect(self, peer):
        print("-- you are in the room", flush=True)

    def handle_disconnect(self, error):
        print("--", error, flush=True)

    def handle_push(self, message):
        name, text = message
        print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    name = sys.argv[1]
    tls = erps.Tls(ca="certs/ca.pem", cert=f"certs/{name}.pem", key=f"certs/{name}.key")
    with ChatClient(("localhost", 4747), transport=tls) as chat:
        for line in sys.stdin:
            chat.say(line.rstrip("\n"))
