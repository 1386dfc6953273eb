"""Breaks one part of the house after the other, and tells what comes of it. It needs no server but its own.

python story.py
"""

import logging
import sys
import tempfile

import gevent
from client import Guest
from gevent.queue import Queue
from server import Daemon, House, guests

import erps_gevent as erps

PATIENCE = 10.0  # seconds for what takes milliseconds


class Heard(Guest):
    """A guest whose words wait for somebody to listen, so that the story is told in its order."""

    def init(self, name, ears):
        super().init(name)
        self.ears = ears

    def show(self, *words):
        self.ears.put(" ".join(map(str, words)))


class Friend:
    """A guest in the story."""

    def __init__(self, name, path):
        self.name = name
        self.ears = Queue()
        self.client = Heard(path, name, self.ears, transport=erps.Tcp(), hub="here")
        self.client.connect()
        self.hear("in the house")

    def hear(self, what):
        """Tell what this guest hears, up to something that begins with `what`."""
        heard = ""
        while not heard.startswith(what):
            heard = self.ears.get(timeout=PATIENCE)
            print(f"    {self.name}: {heard}")

    def lines(self):
        return self.client.stats["connects"]


def chapter(title):
    print(f"\n{title}")


def replaced(name, end):
    """Have `end()` end the process of this name, and wait for the one that its supervisor starts instead."""
    before = erps.whereis(name)
    end()
    with gevent.Timeout(PATIENCE):
        while erps.whereis(name) in (None, before):
            gevent.sleep(0.001)
    print(f"    {name}: {before} is dead, {erps.whereis(name)} is in its place")


def killed(name):
    replaced(name, lambda: erps.kill(erps.whereis(name)))


def story(path):
    print("The house is built; alice and bob come in.")
    house = House.start_link(path, erps.Tcp(), name="house")
    alice, bob = Friend("alice", path), Friend("bob", path)
    alice.client.cast("ring")
    for friend in (alice, bob):
        friend.hear("bell")

    chapter("The bell breaks: a new one is hung up, which counts from 1. No line is lost.")
    replaced("bell", lambda: alice.client.cast("break"))
    bob.client.cast("ring")
    for friend in (alice, bob):
        friend.hear("bell")

    chapter("Alice's host crashes: she heals, and has a new one. Bob does not notice.")
    alice.client.cast("crash")
    alice.hear("in the house")
    print(f"    lines: alice has had {alice.lines()}, bob {bob.lines()}")

    chapter("The daemon is killed: the hosts have another supervisor and live on. Carol comes in by the new one.")
    killed("door")
    carol = Friend("carol", path)
    print(f"    lines: alice has had {alice.lines()}, bob {bob.lines()}, carol {carol.lines()}")
    print(f"    the new daemon has {len(Daemon.of('door').servers)} line, the house {len(guests())} guests")

    chapter("The supervisor of the hosts is killed, and they with it: all guests heal. The daemon does not notice.")
    door = erps.whereis("door")
    killed("hosts")
    for friend in (alice, bob, carol):
        friend.hear("in the house")
    print(f"    the daemon is the same: {erps.whereis('door') is door}")

    chapter("The registry is killed: all that came after it is started again, in order, and all guests heal.")
    killed("guests")
    for friend in (alice, bob, carol):
        friend.hear("in the house")
    print(f"    the daemon is the same: {erps.whereis('door') is door}")

    chapter("The house is closed, from the door to the registry. The guests are told, and would come back.")
    erps.stop(house)
    print(f"    processes left: {[name for name in ('guests', 'bell', 'hosts', 'door') if erps.whereis(name)]}")
    for friend in (alice, bob, carol):
        friend.client.close()


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, level=logging.CRITICAL)  # what breaks is reported there; here, it is told
    with tempfile.TemporaryDirectory() as directory:
        telling = erps.spawn(story, f"{directory}/house.sock")
        watch = erps.monitor(telling)
        down = erps.receive(lambda message: isinstance(message, erps.Down) and message.ref == watch)
        sys.exit(0 if down.reason is erps.NORMAL else f"the story broke off: {down.reason!r}")
