"""A house with a bell, as a supervision tree: README.md has a drawing of it, and says what restarts what.

    python server.py

and, in a terminal each, guests, who type `who`, `ring`, `break` (the bell) or `crash` (what serves them):

    python client.py alice
    python client.py bob

All of that in one run, which breaks one thing after the other and tells what comes of it:

    python story.py

Everybody is on this machine, so a unix socket does without TLS.
"""

import signal
import sys

import gevent

import erps_gevent as erps
from erps_gevent import Daemon, DynamicSupervisor, Registry, Reply, Supervisor


class Bell(erps.GenServer):
    """A worker with a flaw. What it counts is gone when it breaks."""

    def init(self):
        self.strokes = 0

    def handle_cast(self, request):
        match request:
            case "ring":
                self.strokes += 1
                tell_everybody(("bell", self.strokes))
            case "break":
                raise RuntimeError("the bell is broken")


def tell_everybody(message):
    for _name, pid, _value in Registry.select("guests"):
        try:
            erps.push(pid, message, timeout=0)  # who does not read must not keep the others waiting
        except erps.CallExit:
            erps.disconnect(pid)


class Host(erps.Server, identifier="house", versions="~=1.0"):
    """Serves one guest, as a child of "hosts". The registry knows it, and drops it when it ends."""

    def handle_call(self, request, from_):
        match request:
            case ("enter", str(name)):
                try:
                    Registry.register("guests", name)
                except erps.AlreadyRegistered:
                    raise erps.ErrorReply("name_taken", f"{name} is in already") from None
                return Reply(guests())
            case "who":
                return Reply(guests())
        raise erps.ErrorReply("unknown_request")

    def handle_cast(self, request):
        match request:
            case "ring" | "break":
                erps.cast("bell", request)
            case "crash":
                raise RuntimeError("the guest asked for it")


def guests():
    return sorted(name for name, _pid, _value in Registry.select("guests"))


class Rooms(Supervisor, strategy="one_for_one"):
    """What ends here is started again, alone."""

    def init(self, listener, transport):
        return [
            Bell.child_spec(name="bell"),
            DynamicSupervisor.child_spec(name="hosts"),
            Daemon.child_spec(listener, Host, transport=transport, server_supervisor="hosts", name="door"),
        ]


class House(Supervisor, strategy="rest_for_one"):
    """What ends here is started again with all that comes after it: it would not work with a new registry."""

    def init(self, listener, transport):
        return [
            Registry.child_spec(keys="unique", name="guests"),
            Rooms.child_spec(listener, transport, name="rooms"),
        ]


if __name__ == "__main__":
    house = House.start_link("./house.sock", erps.Tcp(), name="house")
    watch = erps.monitor(house)
    for signum in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(signum, erps.stop, "house")  # the guests are told, and their hosts ended, one by one
    print("the house is at ./house.sock", flush=True)
    down = erps.receive(lambda message: isinstance(message, erps.Down) and message.ref == watch)
    sys.exit(0 if down.reason is erps.NORMAL else f"the house is gone: {down.reason}")
