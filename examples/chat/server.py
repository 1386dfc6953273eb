"""A chat room: what one client says is pushed to all.

State is per connection: each client has a `Chat` process of its own. What they share, the room, is one more process,
which they all call by its name. Who speaks is known from the certificate; there is no login.

Once, in this directory: certificates for the server and for those who chat.

    erps certs certs --server localhost,127.0.0.1 --client alice bob carol

Then the server; Ctrl-C or `kill` ends it:

    python server.py

and, in a terminal each, the clients. What you type goes to everybody; Ctrl-D leaves.

    python client.py alice
    python client.py bob
"""

import signal
from collections import deque

import gevent

import erps_gevent as erps
from erps_gevent import Reply


class Room(erps.GenServer):
    def init(self):
        self.members = {}  # the pid of a Chat process -> a name
        self.said = deque(maxlen=10)  # what outlives every line

    def handle_call(self, request, from_):
        match request:
            case ("join", pid, name):
                self.members[pid] = name
                return Reply(list(self.said))

    def handle_cast(self, request):
        match request:
            case ("say", name, text):
                self.said.append((name, text))
                for pid in list(self.members):
                    self.tell(pid, (name, text))
            case ("leave", pid):
                self.members.pop(pid, None)

    def tell(self, pid, message):
        try:
            erps.push(pid, message, timeout=0)  # who does not read must not keep the others waiting
        except erps.CallExit:
            self.members.pop(pid, None)
            erps.disconnect(pid)


class Chat(erps.Server, identifier="chat", versions="~=1.0"):
    def init(self):
        self.name = self.peer.sans[0]
        for message in erps.call("room", ("join", self.pid, self.name)):
            self.push(message)

    def handle_cast(self, request):
        match request:
            case ("say", str(text)):
                erps.cast("room", ("say", self.name, text))

    def terminate(self, reason):
        erps.cast("room", ("leave", self.pid))


if __name__ == "__main__":
    Room.start(name="room")
    tls = erps.Tls(ca="certs/ca.pem", cert="certs/localhost.pem", key="certs/localhost.key")
    daemon = erps.Daemon(("localhost", 4747), Chat, transport=tls)
    for signum in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(signum, daemon.close)  # serve_forever then has the clients move, and returns
    daemon.start()
    print("the room is at localhost:4747", flush=True)
    daemon.serve_forever()
