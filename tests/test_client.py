"""Client: the handle and its process, from the class statement to the warning about a forgotten one."""

from __future__ import annotations

import gc
import pickle
import signal
import time
import warnings
import weakref

import gevent
import pytest
from ends import Scripted
from faces import PATIENCE, Gate, House, Lab, LabClient, Notes, ended, free_port, greenlets, tls, until, wire
from gevent.monkey import get_original
from support import MS, Certs

import erps_gevent as erps
from erps_gevent import Continue, Ignore, NoReply, Stop, healing
from erps_gevent.backoff import Backoff
from erps_gevent.transport.sockets import listen
from erps_gevent.wire.packet import Stamp, Type
from erps_gevent.wire.session import ServerSession

start_native_thread = get_original("_thread", "start_new_thread")


@pytest.fixture
def lab(house):
    """A daemon with an act that parks at `gate`."""
    gate = Gate()
    daemon = house.daemon(Lab, {"gate": gate, "never": lambda server, from_: NoReply()})
    daemon.gate = gate
    return daemon


@pytest.fixture
def client(house, lab, hub):
    return house.client(lab, hub=hub)


# Construction.


def test_constructing_it_touches_nothing():
    client = LabClient(("no-such-host.invalid", 1), transport=erps.Tcp())
    assert not client.connected
    assert client.peer is None
    info = client.info()
    assert (info["state"], info["hub"], info["cause"]) == ("idle", None, None)
    assert info["address"] == "no-such-host.invalid:1"
    assert (info["identifier"], info["version"]) == ("lab", "1.0.3")
    assert set(client.stats.values()) == {0}
    assert "LabClient of no-such-host.invalid:1, idle" in repr(client)
    client.close()
    assert client.info()["state"] == "closed"


WRONG = [
    ({"transport": None}, erps.ConfigError, r"no transport was given.*Tls\(.*Tcp\(\)"),
    ({"transport": erps.Tls}, erps.ConfigError, "the class itself"),
    ({"transport": 7}, erps.ConfigError, "no transport"),
    ({"address": "example"}, erps.ConfigError, r"erps://host:4747"),
    ({"address": ("localhost", 0)}, erps.ConfigError, "port 0"),
    ({"address": 4747}, erps.ConfigError, "erps://host"),
    ({"address": "erps://localhost:1"}, erps.ConfigError, r"erps\+tcp://"),
    ({"address": "http://localhost:1"}, erps.ConfigError, "scheme"),
    ({"keepalife": 1}, TypeError, "did you mean 'keepalive'"),
    ({"recconect": 1}, TypeError, "did you mean 'reconnect'"),
    ({"zzz": 1}, TypeError, "zzz"),
    ({"keepalive": 0}, erps.ConfigError, "keepalive"),
    ({"keepalive": True}, erps.ConfigError, "keepalive"),
    ({"hub": "there"}, erps.ConfigError, "'auto', 'here', 'thread'"),
    ({"heal": 1}, erps.ConfigError, "heal is True or False"),
    ({"version": "one"}, erps.ConfigError, "version"),
    ({"version": "1.0.300"}, erps.ConfigError, "version"),
    ({"identifier": 7}, erps.ConfigError, "identifier"),
    ({"max_size": 1.5}, erps.ConfigError, "whole number"),
    ({"codec": "json"}, erps.ConfigError, "cbor"),
    ({"compressed": 11}, erps.ConfigError, "zlib level"),
]


@pytest.mark.parametrize(("change", "error", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_at_once(change, error, text):
    given = {"address": ("localhost", 1), "transport": erps.Tcp(), **change}
    with pytest.raises(error, match=text):
        LabClient(given.pop("address"), **given)


def test_a_path_cannot_be_compared_with_a_certificate(certs):
    with pytest.raises(erps.ConfigError, match="server_hostname="):
        LabClient("/run/x.sock", transport=erps.Tls(**certs.identity("alice")))


def test_a_patient_call_waits_for_the_next_line_when_writing_to_this_one_has_just_failed(house, lab):
    client = house.client(lab, hub="here")
    client.wait_connected(timeout=PATIENCE)
    client._lifeline.healer.line.outbox._fail(erps.Disconnected("the cable was cut", sent=True))
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1


def test_a_misspelt_option_fails_at_the_class_statement():
    with pytest.raises(TypeError, match="class Wrong has no option 'versoin'; did you mean 'version'"):

        class Wrong(erps.Client, versoin="1.0"):
            pass

    with pytest.raises(erps.ConfigError, match="class Bad: max_pushes is a whole number"):

        class Bad(erps.Client, max_pushes=-1):
            pass


def test_defining_a_constructor_fails_at_the_class_statement():
    with pytest.raises(TypeError, match=r"Wrong defines __init__; .* init\(self"):

        class Wrong(erps.Client):
            def __init__(self):
                pass


def test_arguments_are_bound_to_init_at_once():
    class Named(erps.Client):
        def init(self, account):
            self.account = account

    with pytest.raises(TypeError, match=r"Named.init\(account\).*did you mean 'account'"):
        Named(("localhost", 1), acount=1, transport=erps.Tcp())
    with pytest.raises(TypeError, match=r"Named.init\(account\): missing"):
        Named(("localhost", 1), transport=erps.Tcp())


def test_options_are_inherited_and_those_given_win(house, lab):
    class Careful(LabClient, max_pending=1, keepalive=7.0):
        pass

    client = house.client(lab, cls=Careful, keepalive=8.0)
    chosen = client._lifeline.chosen
    assert (chosen["max_pending"], chosen["keepalive"], chosen["identifier"]) == (1, 8.0, "lab")


def test_a_url_says_it_all(house, lab):
    scheme = "erps+tcp" if house.wire.kind == "tcp" else "erps"
    client = house.client(f"{scheme}://127.0.0.1:{lab.server_port}")
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


# Calls, casts, lines.


def test_the_first_call_connects_and_the_values_keep_their_types(client):
    value = {"t": (1, 2.5, b"x", None), ("a", 1): {3}, "big": 10**40}
    assert client.call(("echo", value), timeout=PATIENCE) == value
    assert client.connected
    assert client.info()["state"] == "up"
    assert client.info()["hub"] == client._lifeline.chosen["hub"]
    assert client.stats["connects"] == 1


def test_with_connects_and_closes(house, lab, hub):
    with house.client(lab, hub=hub) as client:
        client.wait_connected(timeout=PATIENCE)
        assert client.peer.address == ("127.0.0.1", lab.server_port)
    assert not client.connected
    assert client.peer is None
    until(lambda: lab.servers == [])


def test_a_cast_is_a_call_without_an_answer(house, hub):
    noted = Notes()
    daemon = house.daemon(Lab, {}, noted)
    client = house.client(daemon, hub=hub)
    assert client.cast(("n", 1), timeout=PATIENCE) is None
    assert noted.wait("cast") == [("n", 1)]


def test_a_closed_client_stays_closed(client):
    client.call(("echo", 1), timeout=PATIENCE)
    client.close()
    client.close()
    for use in (lambda: client.call(("echo", 1)), lambda: client.cast(1), client.connect, client.wait_connected):
        with pytest.raises(erps.Disconnected, match="closed") as caught:
            use()
        assert caught.value.sent is False
        assert caught.value.reason in ("closed", "disconnected")
    assert client.info()["state"] == "closed"


def test_a_client_that_was_closed_before_its_first_use_stays_closed(plain_house):
    client = plain_house.client(("127.0.0.1", 1), hub="thread")
    client.close()
    with pytest.raises(erps.Disconnected, match="closed") as caught:
        client.call("x")
    assert caught.value.request == "x"
    assert client.info()["hub"] is None


def test_disconnect_is_down_until_connect(house, lab, hub):
    noted = Notes()
    client = house.client(lab, noted, hub=hub)
    client.wait_connected(timeout=PATIENCE)
    client.disconnect()
    assert client.info()["state"] == "down"
    with pytest.raises(erps.Disconnected, match=r"connect\(\)"):
        client.call(("echo", 1), timeout=PATIENCE, wait=True)
    with pytest.raises(erps.Disconnected, match=r"connect\(\)"):
        client.wait_connected(timeout=PATIENCE)
    client.connect()
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert noted.wait("connect", 2)
    assert noted.of("disconnect") == []


def test_wait_connected_waits_through_failures(house, hub):
    port = free_port()
    client = house.client(("127.0.0.1", port), hub=hub)
    waiting = gevent.spawn(client.wait_connected, PATIENCE)
    until(lambda: client.stats["failed_attempts"])
    house.daemon(listener=("127.0.0.1", port))
    waiting.get(timeout=PATIENCE)
    assert client.connected


def test_wait_connected_has_a_timeout_and_says_why(house, hub, late_word):
    client = house.client(("127.0.0.1", free_port()), hub=hub)
    with pytest.raises(erps.CallTimeout, match="no line") as caught:
        client.wait_connected(timeout=500 * MS)
    assert caught.value.sent is False
    assert "refused" in str(caught.value.__cause__)


def test_a_call_while_down_fails_at_once_or_waits_if_asked(house, hub, late_word):
    port = free_port()
    client = house.client(("127.0.0.1", port), hub=hub)
    with pytest.raises(erps.Disconnected, match="refused") as caught:
        client.call(("echo", 1), timeout=PATIENCE)
    assert caught.value.sent is False
    assert caught.value.request == ("echo", 1)
    with pytest.raises(erps.CallTimeout) as late:
        client.call(("echo", 2), timeout=30 * MS, wait=True)
    assert late.value.sent is False
    house.daemon(listener=("127.0.0.1", port))
    assert client.call(("echo", 3), timeout=PATIENCE, wait=True) == 3


@pytest.mark.parametrize("timeout", [0, 0.0])
def test_a_timeout_of_nothing_gives_up_at_once(client, lab, timeout):
    client.wait_connected(timeout=PATIENCE)
    with pytest.raises(erps.CallTimeout):
        client.call(("never",), timeout=timeout)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


def test_a_timeout_of_none_waits_for_ever(client, lab):
    call = gevent.spawn(client.call, ("gate",), None)
    lab.gate.entered.wait(PATIENCE)
    lab.gate.open()
    assert call.get(timeout=PATIENCE) == "through"


@pytest.mark.parametrize("timeout", [-1, "1", True, float("nan"), float("inf"), (1,)])
def test_a_timeout_that_is_none_is_refused(client, timeout):
    for use in (
        lambda: client.call(("echo", 1), timeout=timeout),
        lambda: client.cast(1, timeout=timeout),
        lambda: client.wait_connected(timeout=timeout),
    ):
        with pytest.raises(erps.ConfigError, match="timeout is a number"):
            use()


def test_a_late_answer_is_dropped_and_counted(client, lab):
    client.wait_connected(PATIENCE)
    with pytest.raises(erps.CallTimeout, match="no answer in") as caught:
        client.call(("gate",), timeout=300 * MS)
    assert caught.value.sent
    assert caught.value.request == ("gate",)
    lab.gate.open()
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert client.stats["pending"] == 0


# Neighbours.


def test_a_killed_caller_leaves_its_neighbours_alone(house, lab):
    client = house.client(lab)
    client.wait_connected(PATIENCE)
    doomed = gevent.spawn(client.call, ("never",), timeout=PATIENCE)
    until(lambda: client.stats["pending"] == 1)
    doomed.kill()
    assert client.stats["pending"] == 0
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert client.stats["connects"] == 1


def test_a_gevent_timeout_leaves_the_line_alone(client, lab):
    client.wait_connected(PATIENCE)
    with pytest.raises(gevent.Timeout):
        with gevent.Timeout(20 * MS):
            client.call(("never",), timeout=PATIENCE)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    until(lambda: client.stats["pending"] == 0)
    assert client.stats["connects"] == 1


def test_native_threads_share_a_client(house, lab):
    client = house.client(lab, hub="thread")
    got, ended = [], []

    def call_often(name):
        for number in range(50):
            got.append(client.call(("echo", (name, number)), timeout=PATIENCE) == (name, number))
        ended.append(name)

    for name in range(8):
        start_native_thread(call_often, (name,))
    until(lambda: len(ended) == 8)
    assert got == [True] * 400
    assert client.stats["connects"] == 1


def test_all_clients_share_one_hub_thread(house, lab):
    clients = [house.client(lab, hub="thread") for _ in range(3)]
    for client in clients:
        client.wait_connected(PATIENCE)
    assert len({id(client._lifeline.hub) for client in clients}) == 1
    assert clients[0]._lifeline.hub is not gevent.get_hub()


def test_hub_auto_is_here_in_a_greenlet(house, lab):
    client = house.client(lab, hub="auto")
    gevent.spawn(client.wait_connected, PATIENCE).get(timeout=PATIENCE)
    assert client.info()["hub"] == "here"


def test_an_interrupt_ends_the_wait_in_another_hub(house, lab):
    client = house.client(lab, hub="thread")
    client.wait_connected(PATIENCE)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            client.call(("never",), timeout=PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)
    until(lambda: client.stats["pending"] == 0)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


def test_too_many_pending_calls_are_refused_before_they_are_sent(house, lab):
    client = house.client(lab, max_pending=2)
    client.wait_connected(PATIENCE)
    calls = [gevent.spawn(client.call, ("never",), timeout=PATIENCE) for _ in range(2)]
    until(lambda: client.stats["pending"] == 2)
    with pytest.raises(erps.Overloaded, match="max_pending") as caught:
        client.call(("echo", 1), timeout=PATIENCE)
    assert caught.value.sent is False
    assert caught.value.request == ("echo", 1)
    gevent.killall(calls)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


# The client's process.


def test_callbacks_are_told_once_of_each_line_and_each_cause(house, hub, monkeypatch):
    monkeypatch.setattr(healing, "MOVE_FOR", 0.1)
    noted = Notes()
    daemon = house.daemon()
    client = house.client(daemon, noted, hub=hub)
    client.wait_connected(PATIENCE)
    daemon.stop(timeout=0)
    # The move found nobody, again and again, and that is told once.
    noted.wait("disconnect")
    failed = client.stats["failed_attempts"]
    until(lambda: client.stats["failed_attempts"] >= failed + 2)
    assert len(noted.of("connect")) == 1
    (cause,) = noted.of("disconnect")
    assert "refused" in str(cause)
    daemon.start()
    client.wait_connected(PATIENCE)
    noted.wait("connect", 2)
    assert noted.of("connect")[1].address == daemon.address


def test_a_lost_line_is_reported_with_its_cause_and_healed_at_once(plain_house, hub):
    noted = Notes()
    acts = {"crash": lambda server, from_: 1 // 0}
    client = plain_house.client(plain_house.daemon(Lab, acts), noted, hub=hub)
    with pytest.raises(erps.ServerExit):
        client.call(("crash",), timeout=PATIENCE)
    (error,) = noted.wait("disconnect")
    assert isinstance(error, erps.ServerExit)
    assert error.kind == "ZeroDivisionError"
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1
    assert client.stats["lost"] == 1


def test_a_client_that_shall_not_heal_gives_up(house, hub):
    daemon = house.daemon(Lab, {"crash": lambda server, from_: 1 // 0})
    client = house.client(daemon, hub=hub, heal=False)
    with pytest.raises(erps.ServerExit):
        client.call(("crash",), timeout=PATIENCE)
    until(lambda: client.info()["state"] == "closed")
    with pytest.raises(erps.Disconnected, match="closed"):
        client.call(("echo", 1), timeout=PATIENCE, wait=True)


class Curious(erps.Client, identifier="lab", version="1.0.0"):
    def init(self, note):
        self.note = note

    def handle_push(self, message):
        self.note("answer", self.call(("echo", message), timeout=PATIENCE))


def test_a_call_inside_handle_push_works(house, hub):
    noted = Notes()
    daemon = house.daemon()
    house.client(daemon, noted, cls=Curious, hub=hub).wait_connected(PATIENCE)
    daemon.broadcast(1)
    daemon.broadcast(2)
    assert noted.wait("answer", 2) == [1, 2]


class Slow(erps.Client, identifier="lab", version="1.0.0"):
    def init(self, gate, note):
        self.gate = gate
        self.note = note

    def handle_push(self, message):
        self.gate()

    def handle_disconnect(self, error):
        self.note("disconnect", error)


def test_too_many_pushes_close_the_line_by_name(house):
    gate, noted = Gate(), Notes()
    daemon = house.daemon()
    client = house.client(daemon, gate, noted, cls=Slow, max_pushes=10)
    client.wait_connected(PATIENCE)
    for number in range(20):
        daemon.broadcast(number)
    until(lambda: client.stats["lost"])
    gate.open()
    (error,) = noted.wait("disconnect")
    assert isinstance(error, erps.Overloaded)
    assert "max_pushes" in str(error)
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1


def test_too_many_pushes_during_a_move_close_the_old_line_by_name(plain_house):
    slow, gate = Gate(), Gate()
    daemon = plain_house.daemon(Lab, {"gate": gate})
    client = plain_house.client(daemon, slow, Notes(), cls=Slow, max_pushes=10)
    client.wait_connected(PATIENCE)
    call = gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    stopping = gevent.spawn(daemon.stop, timeout=PATIENCE)
    until(lambda: client.stats["moves"])
    for number in range(20):
        daemon.broadcast(number)
    with pytest.raises(erps.Disconnected) as caught:
        call.get(timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, erps.Overloaded)
    slow.open()
    gate.open()
    stopping.get(timeout=PATIENCE)


def test_a_crash_in_handle_push_ends_the_client_and_calls_say_so(house, hub, caplog):
    class Clumsy(LabClient):
        def handle_push(self, message):
            raise LookupError("no such page")

    daemon = house.daemon(Lab, {"never": lambda server, from_: NoReply()})
    noted = Notes()
    client = house.client(daemon, noted, cls=Clumsy, hub=hub)
    client.wait_connected(PATIENCE)
    pending = gevent.spawn(client.call, ("never",), PATIENCE)
    until(lambda: client.stats["pending"] == 1)
    daemon.broadcast(1)
    with pytest.raises(erps.Disconnected, match="no such page") as caught:
        pending.get(timeout=PATIENCE)
    assert caught.value.sent is True
    with pytest.raises(erps.Disconnected, match="own process ended: LookupError: no such page"):
        client.call(("echo", 1), timeout=PATIENCE)
    assert isinstance(noted.of("terminate")[0], LookupError)
    until(lambda: daemon.servers == [])
    assert caplog.text.count("terminating") == 1


def test_a_client_may_stop_itself(house):
    class Fickle(LabClient):
        def handle_push(self, message):
            return Stop(erps.NORMAL)

    daemon = house.daemon()
    client = house.client(daemon, cls=Fickle)
    client.wait_connected(PATIENCE)
    daemon.broadcast(1)
    until(lambda: client.info()["state"] == "closed")
    with pytest.raises(erps.Disconnected, match="closed"):
        client.call(1)


def test_the_timeout_covers_an_init_that_takes_longer(plain_house, hub):
    gate = Gate()

    class Thorough(erps.Client, identifier="lab", version="1.0.0"):
        def init(self):
            gate()

    daemon = plain_house.daemon()
    client = plain_house.client(daemon, cls=Thorough, hub=hub)
    acts = (
        lambda: client.call(("echo", 1), timeout=20 * MS),
        lambda: client.cast("now", timeout=20 * MS),
        lambda: client.wait_connected(20 * MS),
    )
    with gevent.Timeout(PATIENCE):
        for act in acts:
            with pytest.raises(
                erps.CallTimeout, match=r"has not returned in time|has not run its hub|not ended in"
            ) as caught:
                act()
            assert caught.value.sent is False or hub == "thread"
        gate.open()
        assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert client.stats["connects"] == 1


@pytest.mark.parametrize(("answer", "error"), [(Stop("why not"), erps.StartError), (Ignore(), erps.StartIgnored)])
def test_a_client_whose_init_declines_does_not_connect(plain_house, hub, answer, error):
    class Declining(erps.Client, identifier="lab", version="1.0.0"):
        def init(self):
            return answer

    daemon = plain_house.daemon()
    client = plain_house.client(daemon, cls=Declining, hub=hub)
    with pytest.raises(error):
        client.call(("echo", 1), timeout=PATIENCE)
    assert daemon.info()["accepted"] == 0


def test_a_client_may_close_itself_in_a_callback(house):
    class Done(LabClient):
        def handle_push(self, message):
            self.close()

    daemon = house.daemon()
    client = house.client(daemon, cls=Done)
    client.wait_connected(PATIENCE)
    daemon.broadcast("go")
    until(lambda: daemon.servers == [])
    assert client.info()["state"] == "closed"


# As a process.


def test_its_pid_and_name_take_the_remote_path(house, lab, hub):
    noted = Notes()
    pid = LabClient.start(
        ("127.0.0.1", lab.server_port), noted, transport=house.wire.client, hub=hub, name="remote lab"
    )
    try:
        assert erps.call(pid, ("echo", 1), timeout=PATIENCE) == 1
        assert erps.call("remote lab", ("echo", 2), timeout=PATIENCE) == 2
        assert pid.call(("echo", 3), timeout=PATIENCE) == 3
        erps.cast("remote lab", "told")
        assert erps.whereis("remote lab") is pid
        pid.send("to the mailbox")
        assert noted.wait("info") == ["to the mailbox"]
    finally:
        erps.stop(pid)
    assert noted.of("terminate") == [erps.NORMAL]
    assert not pid.is_alive()
    until(lambda: lab.servers == [])
    with pytest.raises(erps.NoProc):
        erps.call("remote lab", 1)


def test_erps_call_takes_a_client(client):
    assert erps.call(client, ("echo", 1), timeout=PATIENCE) == 1
    erps.cast(client, 1)


def test_a_linked_client_ends_with_its_parent(house, lab):
    started = []

    class Parent(erps.GenServer):
        def init(self):
            address = ("127.0.0.1", lab.server_port)
            started.append(LabClient.start_link(address, transport=house.wire.client, hub="here"))

        def handle_cast(self, request):
            raise RuntimeError("the parent falls")

    parent = Parent.start()
    assert started[0].call(("echo", 1), timeout=PATIENCE) == 1
    parent.cast(1)
    until(lambda: not started[0].is_alive())
    until(lambda: lab.servers == [])


def test_a_link_into_another_hub_is_refused(house, lab):
    class Parent(erps.GenServer):
        def init(self):
            LabClient.start_link(("127.0.0.1", lab.server_port), transport=house.wire.client, hub="thread")

    with pytest.raises(erps.StartError, match='hub="here"'):
        Parent.start()


# Forgotten.


def test_a_forgotten_client_closes_itself_with_a_warning(kind, certs, hub):
    house = House(wire(kind, certs))
    daemon = house.daemon()

    def use():
        client = LabClient(daemon.address, transport=house.wire.client, hub=hub)
        client.call(("echo", 1), timeout=PATIENCE)
        return weakref.ref(client)

    gc.collect()
    before = greenlets()
    with pytest.warns(ResourceWarning, match=r"LabClient of 127.0.0.1.* never closed: use `with`"):
        forgotten = use()
    assert forgotten() is None
    until(lambda: daemon.servers == [])
    until(lambda: greenlets() <= before, "its greenlets")
    house.close()


def test_a_forgotten_client_that_was_closed_or_never_used_says_nothing(plain_house):
    daemon = plain_house.daemon()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with LabClient(daemon.address, transport=erps.Tcp(), hub="here") as client:
            client.wait_connected(PATIENCE)
        del client
        LabClient(daemon.address, transport=erps.Tcp())
        gc.collect()


def test_closing_while_a_call_waits_fails_it(client, lab):
    call = gevent.spawn(client.call, ("never",), PATIENCE)
    until(lambda: client.stats["pending"] == 1)
    client.close()
    with pytest.raises(erps.Disconnected) as caught:
        call.get(timeout=PATIENCE)
    assert caught.value.sent is True


@pytest.mark.volume
def test_two_thousand_calls_leave_nothing_behind(certs: Certs, hub):
    house = House(wire("tls1.3", certs))
    client = house.client(house.daemon(), hub=hub)
    client.wait_connected(PATIENCE)
    before = greenlets()
    for number in range(2000):
        assert client.call(("echo", number), timeout=PATIENCE) == number
    assert client.stats["pending"] == 0
    # What an earlier test has left may be ending, or beginning to.
    until(lambda: greenlets() <= before, "the greenlets to end")
    house.close()


def test_an_error_of_a_call_pickles(client):
    client.wait_connected(PATIENCE)
    with pytest.raises(erps.CallTimeout) as caught:
        client.call(("never",), timeout=0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.request, again.sent) == (str(caught.value), ("never",), caught.value.sent)


def test_a_call_over_a_black_hole_returns_in_time(plain_house, hub, late_word):
    silent = plain_house.daemon(max_handshakes=1)
    silent.stop_accepting()
    client = plain_house.client(silent, hub=hub)
    began = time.monotonic()
    with pytest.raises(erps.CallTimeout) as caught:
        client.call(("echo", 1), timeout=100 * MS)
    assert 0.09 < time.monotonic() - began < 2
    assert caught.value.sent is False


def test_a_burst_of_pushes_reaches_a_handler_that_keeps_up(house):
    def burst(server, from_, count):
        for number in range(count):
            server.push((number, b"x" * 1000))
        return erps.Reply("pushed")

    noted = Notes()
    client = house.client(house.daemon(Lab, {"burst": burst}), noted)
    assert client.call(("burst", 3000), timeout=PATIENCE) == "pushed"
    until(lambda: len(noted.of("push")) == 3000)
    assert [message[0] for message in noted.of("push")] == list(range(3000))
    assert client.stats["lost"] == 0


def test_a_client_that_was_not_started_has_no_pid():
    client = LabClient(("127.0.0.1", 1), transport=erps.Tcp())
    with pytest.raises(erps.NoProc, match="has no process yet"):
        client.pid


# What a user may say and be sent, and what callbacks answer with.


def test_what_is_missing_is_said_at_once():
    with pytest.raises(TypeError, match="address"):
        LabClient(transport=erps.Tcp())


def test_a_start_returns_before_the_line_is_up_and_its_process_is_free_meanwhile(plain_house):
    noted, gate = Notes(), Gate()

    class Late(Lab):
        def init(self):
            super().init()
            gate()

    daemon = plain_house.daemon(Late)
    pid = LabClient.start(daemon.address, noted, transport=erps.Tcp(), hub="here")
    plain_house.pids.append(pid)
    assert gate.entered.wait(PATIENCE)
    pid.send("to the mailbox")
    assert noted.wait("info") == ["to the mailbox"]
    assert noted.of("connect") == []
    call = gevent.spawn(pid.call, ("echo", 1), timeout=PATIENCE)
    gate.open()
    assert call.get(timeout=PATIENCE) == 1


@pytest.mark.parametrize("count", [2, 50, 1000])
def test_any_number_of_callers_share_a_line_at_once(house, count):
    client = house.client(house.daemon())
    client.wait_connected(PATIENCE)
    callers = [gevent.spawn(client.call, ("echo", number), timeout=PATIENCE) for number in range(count)]
    assert [caller.get(timeout=PATIENCE) for caller in callers] == list(range(count))


@pytest.mark.parametrize("request_", ["$socket", "$connect", "$disconnect", "$gen_call", "stop", "bye", None, ()])
def test_no_request_is_kept_from_the_server(plain_house, request_):
    class Echo(erps.Server, identifier="lab"):
        def handle_call(self, request, from_):
            return erps.Reply(request)

    client = plain_house.client(plain_house.daemon(Echo))
    assert client.call(request_, timeout=PATIENCE) == request_
    assert client.connected


@pytest.mark.parametrize("message", [("closed", 1), ("tcp_closed", 1), ("ssl_closed", 1), "closed", "$recv", None])
def test_no_message_is_kept_from_the_client(plain_house, message):
    noted = Notes()
    client = plain_house.client(plain_house.daemon(), noted)
    client.wait_connected(PATIENCE)
    client.pid.send(message)
    assert noted.wait("info") == [message]
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


def test_a_client_without_handle_push_drops_what_is_pushed(plain_house):
    daemon = plain_house.daemon()
    client = plain_house.client(daemon, cls=erps.Client, identifier="lab", version="1.0.0")
    client.wait_connected(PATIENCE)
    daemon.broadcast("ping")
    until(lambda: client.stats["pushes"] == 1)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


class Then(LabClient):
    """Its handle_push answers with `then`."""

    def init(self, note, then, begin=None):
        super().init(note)
        self.then = then
        return begin

    def handle_push(self, message):
        super().handle_push(message)
        return NoReply(then=self.then)

    def handle_continue(self, argument):
        self.note("continue", argument)


@pytest.mark.parametrize(
    ("then", "what", "noted"),
    [
        (erps.IdleTimeout(20 * MS), "info", [erps.TIMEOUT]),
        (erps.Continue("on"), "continue", ["on"]),
        (erps.HIBERNATE, "push", ["ping"]),
    ],
    ids=["idle timeout", "continue", "hibernate"],
)
def test_a_callback_of_a_connected_client_may_answer_with_what_comes_then(plain_house, then, what, noted):
    """An idle timeout passes in 20 ms although the line is alive meanwhile."""
    notes = Notes()
    daemon = plain_house.daemon()
    client = plain_house.client(daemon, notes, then, cls=Then, keepalive=1 * MS)
    client.wait_connected(PATIENCE)
    daemon.broadcast("ping")
    assert notes.wait(what) == noted
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


@pytest.mark.parametrize(
    ("then", "what", "noted"),
    [(erps.IdleTimeout(3600.0), "connect", 1), (erps.Continue("on"), "continue", 1), (erps.HIBERNATE, "connect", 1)],
    ids=["idle timeout", "continue", "hibernate"],
)
def test_what_comes_after_init_does_not_put_off_the_connection(plain_house, then, what, noted):
    notes = Notes()
    client = plain_house.client(plain_house.daemon(), notes, None, erps.Ok(then=then), cls=Then)
    client.wait_connected(PATIENCE)
    assert len(notes.wait(what)) == noted


def test_an_idle_timeout_of_init_comes_although_the_line_is_being_made(plain_house):
    notes = Notes()
    client = plain_house.client(
        ("127.0.0.1", free_port()), notes, None, erps.Ok(then=erps.IdleTimeout(0)), cls=Then, reconnect=3600.0
    )
    client.connect()
    assert notes.wait("info") == [erps.TIMEOUT]


def test_handle_connect_may_stop_the_client(plain_house):
    class Choosy(LabClient):
        def handle_connect(self, peer):
            return Stop("not this one")

    noted = Notes()
    pid = Choosy.start(plain_house.daemon().address, noted, transport=erps.Tcp(), hub="here")
    assert ended(pid) == "not this one"
    assert noted.of("terminate") == ["not this one"]


def test_a_client_whose_certificate_is_refused_was_never_connected(certs, impostor_certs):
    """With TLS 1.3 its own handshake has succeeded by then."""
    noted = Notes()
    house = House(wire("tls1.3", certs))
    client = house.client(house.daemon(), noted, transport=tls("tls1.3", impostor_certs, "alice", False, ca=certs.ca))
    with pytest.raises(erps.Disconnected, match="the server refused our certificate"):
        client.call(("echo", 1), timeout=PATIENCE)
    noted.wait("disconnect")
    assert noted.of("connect") == []
    house.close()


UNKNOWN_TAG = bytes.fromhex("82f6 d90539 80")  # [null, 1337([])], of which safe mode knows nothing


class Trusting(LabClient, safe=False):
    pass


@pytest.fixture
def scripted(plain_house):
    """Connects a client of this class to a server that the test speaks for."""
    open_ = []

    def connect(cls, *args, **options):
        listener = listen(("127.0.0.1", 0))
        listener.settimeout(PATIENCE)
        client = plain_house.client(listener.getsockname(), *args, cls=cls, **options)
        client.connect()
        stream = erps.Tcp().accept(*listener.accept(), PATIENCE)
        open_.extend((listener, stream))
        server = Scripted(stream, ServerSession(Stamp((0, 0, 0), "lab")))
        server.hear(Type.HELLO)
        server.say(server.session.welcome(None, 1000))
        client.wait_connected(PATIENCE)
        return client, server

    yield connect
    # Before the clients, whose bye nobody would read.
    for end in open_:
        end.close()


@pytest.mark.parametrize(("cls", "given"), [(LabClient, {}), (Trusting, {"safe": True})], ids=["default", "start"])
def test_a_safe_client_closes_the_line_on_what_it_does_not_know(scripted, cls, given):
    notes = Notes()
    _, server = scripted(cls, notes, **given)
    server.say(Stamp((0, 0, 0), "lab").frame(Type.PUSH, UNKNOWN_TAG))
    assert isinstance(notes.wait("disconnect")[0], erps.UnsafeTerm)
    assert notes.of("push") == []


@pytest.mark.parametrize(("cls", "given"), [(Trusting, {}), (LabClient, {"safe": False})], ids=["class", "start"])
def test_a_client_that_is_not_safe_takes_what_it_does_not_know(scripted, cls, given):
    notes = Notes()
    _, server = scripted(cls, notes, **given)
    server.say(Stamp((0, 0, 0), "lab").frame(Type.PUSH, UNKNOWN_TAG))
    assert notes.wait("push")[0].tag == 1337


@pytest.mark.parametrize(("given", "cap"), [({}, 7.0), ({"reconnect": 8.0}, 8.0)], ids=["class", "start"])
def test_reconnect_may_be_a_class_keyword(plain_house, given, cap):
    class Patient(LabClient, reconnect=7.0):
        pass

    client = plain_house.client(("127.0.0.1", free_port()), cls=Patient, **given)
    client.connect()
    assert client._lifeline.healer._backoff.cap == cap


def test_without_a_keepalive_nothing_is_said(scripted):
    client, server = scripted(LabClient, keepalive=None)
    assert client._lifeline.healer.line.keepalive.clock is None
    assert server.hears_nothing()


def test_its_socket_and_its_code_are_nobody_elses_business():
    """Nothing but its reader may read from the socket, and Python reloads no code into a living process."""
    assert not hasattr(erps.Client, "socket")
    assert not hasattr(erps.Client, "code_change")


# An operator's view.


def test_sys_looks_at_the_client_s_own_process(house, lab, hub):
    noted = Notes()
    client = house.client(lab, noted, hub=hub)
    with pytest.raises(erps.NoProc, match="has no process yet"):
        erps.sys.get_state(client)
    client.wait_connected(PATIENCE)
    assert erps.sys.get_state(client) == {"note": noted}
    assert erps.sys.get_status(client)["module"] is LabClient
    erps.sys.replace_state(client, lambda state: {**state, "more": 1})
    assert client.more == 1
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


def test_a_suspended_client_calls_and_its_pushes_wait(house, lab, hub):
    noted = Notes()
    client = house.client(lab, noted, hub=hub)
    client.wait_connected(PATIENCE)
    noted.wait("connect")
    erps.sys.suspend(client)
    lab.broadcast(1)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    until(lambda: client.stats["pushes"])
    assert noted.of("push") == []
    erps.sys.resume(client)
    assert noted.wait("push") == [1]


def test_a_request_to_a_client_is_a_remote_call(house, lab, hub):
    client = house.client(lab, hub=hub)
    first = erps.send_request(client, ("echo", 1))
    assert erps.wait_response(first, PATIENCE) == 1
    slow = erps.send_request(client.pid, ("gate",))
    second = erps.send_request(client.pid, ("never",))
    assert lab.gate.entered.wait(PATIENCE)
    with pytest.raises(erps.CallTimeout):
        erps.receive_response(second, 5 * MS)
    lab.gate.open()
    assert erps.wait_response(slow, PATIENCE) == "through"
    until(lambda: client.stats["pending"] == 0, "the abandoned call to be given up")


def test_a_client_can_be_monitored_from_its_start(house, lab):
    pid, ref = LabClient.start_monitor(("127.0.0.1", lab.server_port), transport=house.wire.client, hub="here")
    erps.stop(pid)
    assert erps.receive(erps.Down, PATIENCE) == erps.Down(ref, pid, erps.NORMAL)
    with pytest.raises(erps.ConfigError, match='monitored by, a process of another hub; use hub="here"'):
        LabClient.start_monitor(("127.0.0.1", lab.server_port), transport=house.wire.client, hub="thread")


# The connection behaviour that Erps.Client is built on: what a callback may do to the line.


class Steered(LabClient):
    """Runs the functions that come as messages."""

    def handle_connect(self, peer):
        super().handle_connect(peer)
        return self.note.on_connect(self) if hasattr(self.note, "on_connect") else None

    def handle_push(self, message):
        super().handle_push(message)
        getattr(self, message)()

    def handle_info(self, message):
        return message(self) if callable(message) else super().handle_info(message)

    def handle_continue(self, argument):
        argument(self)


def test_conn_connect_before_messages(plain_house, hub):
    """Case 187, CN "connect {:ok, state}": start has returned before, and nothing of the line comes before connect."""
    noted, port = Notes(), free_port()
    pid = LabClient.start(("127.0.0.1", port), noted, transport=erps.Tcp(), hub=hub)
    assert noted.of("connect") == []

    class Greeting(Lab):
        def init(self):
            super().init()
            self.push("from init")

    plain_house.daemon(Greeting, listener=("127.0.0.1", port))
    noted.wait("push")
    assert [kind for kind, _ in noted.all if kind != "disconnect"] == ["connect", "push"]
    erps.stop(pid)


@pytest.mark.parametrize("how", ["by itself", "by connect()"])
def test_conn_backoff(plain_house, hub, how, monkeypatch):
    """Case 188, CN "init {:backoff, timeout, state}": connects after the delay; an explicit connect ends it."""
    monkeypatch.setattr(Backoff, "delay", lambda self, error: 50 * MS if how == "by itself" else 3600.0)
    noted, port = Notes(), free_port()
    client = plain_house.client(("127.0.0.1", port), noted, hub=hub)
    client.connect()
    until(lambda: client.info()["state"] == "backoff")
    plain_house.daemon(listener=("127.0.0.1", port))
    if how == "by connect()":
        client.connect()
    client.wait_connected(PATIENCE)
    assert noted.wait("connect")


@pytest.mark.parametrize("reason", [erps.SHUTDOWN, erps.Shutdown("x"), "bad luck"])
@pytest.mark.parametrize("how", ["stop", "exit"])
def test_conn_stop_and_exit(plain_house, hub, how, reason, caplog):
    """Case 190, CN "connect {:stop, ..}", "connect exit(..)": terminate runs, reason kept, quiet for shutdown."""

    def on_connect(client):
        if how == "exit":
            raise erps.Exit(reason)
        return Stop(reason)

    noted = Notes()
    noted.on_connect = on_connect
    client = plain_house.client(plain_house.daemon(), noted, cls=Steered, hub=hub)
    client.connect()
    assert noted.wait("terminate") == [reason]
    until(lambda: client.info()["state"] == "closed")
    with pytest.raises(erps.Disconnected, match="the client's own process ended"):
        client.call(("echo", 1), timeout=PATIENCE)
    reports = [record.getMessage() for record in caplog.records if "terminating" in record.getMessage()]
    assert len(reports) == (reason == "bad luck")
    assert all("last message: connected to 127.0.0.1" in report for report in reports)


def test_conn_disconnect_noconnect(plain_house, hub):
    """Case 191, CN "disconnect {:noconnect, state}": alive and idle."""
    noted = Notes()
    daemon = plain_house.daemon()
    client = plain_house.client(daemon, noted, hub=hub)
    client.wait_connected(PATIENCE)
    client.disconnect()
    until(lambda: daemon.servers == [])
    client.pid.send("hello")
    assert noted.wait("info") == ["hello"]
    assert client.info()["state"] == "down"
    assert client.stats["connects"] == 1


@pytest.mark.parametrize("callback", ["info", "push", "continue"])
def test_conn_from_callbacks(plain_house, hub, callback):
    """Case 192, CN "handle call {:connect, ..}", "{:disconnect, ..}" and the cast, info ones (8 tests).

    A client's process is not called: a call goes to its server. So there is no reply that could come first.
    """
    noted = Notes()
    daemon = plain_house.daemon()
    client = plain_house.client(daemon, noted, cls=Steered, hub=hub)
    client.wait_connected(PATIENCE)
    noted.wait("connect")
    if callback == "push":
        daemon.broadcast("disconnect")
    elif callback == "info":
        client.pid.send(lambda client: client.disconnect())
    else:
        client.pid.send(lambda _: NoReply(Continue(lambda client: client.disconnect())))
    until(lambda: daemon.servers == [])
    assert client.info()["state"] == "down"
    client.pid.send(lambda client: client.connect())
    noted.wait("connect", 2)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert noted.of("disconnect") == []
