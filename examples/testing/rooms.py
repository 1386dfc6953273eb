"""Chat rooms by name. The first who enters a room opens it; one registry of the whole program knows them all."""

import erps_gevent as erps
from erps_gevent import Registry, Reply, Via


def start(sharded=False):
    """Start the registry, once in a program. Its tests have it sharded."""
    return Registry.start(keys="unique", name="rooms", sharded=sharded)


class Room(erps.GenServer, forward_callers=True):  # in the universe of who opens it, and so are the rooms it opens
    def init(self):
        self.people = []

    def handle_call(self, request, from_):
        match request:
            case ("enter", who):
                self.people.append(who)
                return Reply(list(self.people))
            case ("move", who, destination):
                self.people.remove(who)
                return Reply(enter(destination, who))
            case "people":
                return Reply(list(self.people))


def opened(name):
    """The room with this name; it is opened if there is none."""
    try:
        return Room.start(name=Via("rooms", name))
    except erps.AlreadyStarted as already:
        return already.pid


def enter(name, who):
    """Let `who` in, and return who is there."""
    return erps.call(opened(name), ("enter", who))


def move(who, name, destination):
    """Let `who` out of one room and into another, and return who is there."""
    return erps.call(opened(name), ("move", who, destination))


def people(name):
    """Who is in a room."""
    return erps.call(opened(name), "people")
