"""Daemons, their servers and clients in supervision trees: who is restarted, who is told, and who never notices."""

from __future__ import annotations

import logging

import gevent
import pytest
from faces import PATIENCE, Gate, Lab, LabClient, Notes, Parent, ended, free_port, until
from gevent.event import Event
from support import MS
from test_daemon import connected

import erps_gevent as erps
from erps_gevent import Continue, Daemon, DynamicSupervisor, Ignore, Ok, Reply, Stop, Supervisor

SECOND = 1000 * MS


@pytest.fixture
def connections():
    """A supervisor for the servers."""
    pid = DynamicSupervisor.start_link(name="connections")
    yield pid
    erps.kill(pid)
    ended(pid)


@pytest.fixture
def tree():
    """Starts supervisors, and stops them at the end, in reverse."""
    pids = []

    def start(children, **flags):
        flags.setdefault("strategy", "one_for_one")
        pids.append(Supervisor.start_link(children, **flags))
        return pids[-1]

    yield start
    for pid in reversed(pids):
        if pid.is_alive():
            erps.kill(pid)
            ended(pid)


def child(supervisor, position=0):
    """The pid of a child that runs, perhaps after a restart."""
    return until(lambda: isinstance(pid := Supervisor.which_children(supervisor)[position][1], erps.Pid) and pid)


def successor(supervisor, of, position=0):
    """The pid of the child that was started after `of` had ended."""
    ended(of)
    return until(lambda: (pid := child(supervisor, position)) is not of and pid)


def healed(client, losses=1):
    """A call over the line that the client has after as many losses."""
    until(lambda: client.stats["lost"] >= losses)
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1


def crash(server, from_):
    raise LookupError("no such page")


# A daemon in a tree.


def daemon_spec(house, *args, server=Lab, port=None, **options):
    listener = ("127.0.0.1", free_port() if port is None else port)
    return Daemon.child_spec(listener, server, *args, transport=house.wire.server, **options)


def test_a_killed_daemon_is_restarted_at_its_address_and_its_clients_heal(house, tree):
    top = tree([daemon_spec(house)])
    first = child(top)
    client = connected(house, first)
    address = Daemon.of(first).address
    erps.kill(first)
    second = successor(top, first)
    assert Daemon.of(second).address == address
    healed(client)
    assert client.stats["lost"] == 1
    assert len(Daemon.of(second).servers) == 1


def test_supervising_the_daemon(house, tree):
    """otp_test.exs "supervising the daemon": crashes of its servers never restart it."""
    top = tree([daemon_spec(house, {"crash": crash})], max_restarts=0)
    pid = child(top)
    client = connected(house, pid)
    for _ in range(3):
        with pytest.raises(erps.ServerExit):
            client.call(("crash",), timeout=PATIENCE, wait=True)
        client.wait_connected(PATIENCE)
    assert child(top) is pid


def test_a_fatal_accept_error_is_healed_by_the_supervisor(plain_house, tree):
    top = tree([daemon_spec(plain_house)])
    first = child(top)
    client = connected(plain_house, first)
    Daemon.of(first)._accept_failed(OSError(9, "Bad file descriptor"))
    second = successor(top, first)
    healed(client)
    assert len(Daemon.of(second).servers) == 1


def test_a_closed_daemon_that_is_permanent_comes_back(plain_house, tree):
    top = tree([daemon_spec(plain_house)])
    first = child(top)
    Daemon.of(first).close()
    assert Daemon.of(successor(top, first)).started


def test_the_end_of_the_tree_has_the_clients_move(house, tree):
    port = free_port()
    top = tree([daemon_spec(house, port=port, reuse_port=True)])
    client = connected(house, child(top))
    other = house.daemon(listener=("127.0.0.1", port), reuse_port=True)
    erps.stop(top)
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1
    assert (client.stats["moves"], client.stats["lost"]) == (1, 0)
    assert len(other.servers) == 1


def test_an_address_in_use_fails_the_start_of_the_tree_with_that_cause(plain_house, tree):
    taken = plain_house.daemon()
    with pytest.raises(erps.StartError, match="the address is in use") as caught:
        tree([daemon_spec(plain_house, port=taken.server_port)])
    what, id_, reason = caught.value.reason.detail
    assert (what, id_) == ("failed_to_start_child", (Daemon, taken.address))
    assert isinstance(reason.__cause__, OSError)


def test_two_daemons_at_any_port_need_an_id(plain_house, tree):
    with pytest.raises((erps.StartError, erps.ConfigError), match="id"):
        tree([daemon_spec(plain_house, port=0), daemon_spec(plain_house, port=0)])
    top = tree([daemon_spec(plain_house, port=0), daemon_spec(plain_house, port=0, id="second")])
    ports = {Daemon.of(child(top, position)).server_port for position in (0, 1)}
    assert len(ports) == 2


# Servers under a supervisor.


@pytest.mark.parametrize("form", ["pid", "name", "via"])
def test_each_server_is_a_temporary_child_of_the_server_supervisor(house, connections, form):
    supervisor = {"pid": connections, "name": "connections"}.get(form)
    if form == "via":
        registry = erps.Registry.start_link(keys="unique", name="supervisors")
        supervisor = erps.Via("supervisors", "connections")
        fresh = DynamicSupervisor.start_link(name=supervisor)
        connections = fresh
    daemon = house.daemon(server_supervisor=supervisor)
    client = connected(house, daemon)
    (live,) = daemon.servers
    ((_, pid, kind, _),) = DynamicSupervisor.which_children(connections)
    assert (pid, kind) == (live.pid, "worker")
    info = erps.info(pid)
    assert info["parent"] is connections
    assert connections in info["links"]
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    erps.kill(pid)
    healed(client)
    counts = DynamicSupervisor.count_children(connections)
    assert (counts["specs"], counts["active"]) == (1, 1)
    if form == "via":
        erps.kill(fresh)
        erps.stop(registry)


def test_a_server_that_traps_exits_terminates_with_its_supervisor(house, connections):
    """F3: it is its parent that shuts it down."""
    notes = Notes()

    class Trapping(Lab):
        def init(self):
            super().init({}, notes)
            self.trap_exit = True

    daemon = house.daemon(Trapping, server_supervisor=connections)
    client = connected(house, daemon)
    DynamicSupervisor.terminate_child(connections, daemon.servers[0].pid)
    assert notes.all == [("terminate", erps.SHUTDOWN)]
    healed(client)


def test_a_client_is_told_when_the_supervisor_shuts_its_server_down_and_heals(house, connections):
    notes = Notes()
    daemon = house.daemon(server_supervisor=connections)
    client = connected(house, daemon, notes)
    DynamicSupervisor.terminate_child(connections, daemon.servers[0].pid)
    (error,) = notes.wait("disconnect")
    assert isinstance(error, erps.ServerExit)
    assert error.reason is erps.SHUTDOWN
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1


def test_the_shutdown_of_a_server_class_is_that_of_the_child(plain_house):
    specs = []

    class Keeper:
        def start_child(self, child_spec):
            specs.append(child_spec)
            function, args = child_spec["start"]
            return function(*args)

    class Brutal(Lab, shutdown="brutal_kill", restart="permanent", id="lab"):
        pass

    daemon = plain_house.daemon(Brutal, {}, server_supervisor=Keeper())
    assert connected(plain_house, daemon).call(("echo", 1), timeout=PATIENCE) == 1
    (spec,) = specs
    assert (spec["id"], spec["restart"], spec["shutdown"]) == ("lab", "temporary", "brutal_kill")
    assert erps.child_spec(spec)["start"][1] == ({},)


def test_extra_arguments_of_the_supervisor_come_before_those_of_the_daemon(plain_house):
    class Adder(erps.Server, identifier="lab"):
        def init(self, *args):
            self.args = args

        def handle_call(self, request, from_):
            return Reply(self.args)

    supervisor = DynamicSupervisor.start_link(extra_arguments=[1, 2])
    daemon = plain_house.daemon(Adder, 3, server_supervisor=supervisor)
    assert connected(plain_house, daemon).call("args", timeout=PATIENCE) == (1, 2, 3)
    erps.kill(supervisor)


def refused(house, daemon):
    client = house.client(daemon)
    with pytest.raises(erps.Disconnected) as caught:
        client.call(("echo", 1), timeout=PATIENCE)
    assert caught.value.sent is False
    return caught.value.__cause__


def test_a_supervisor_that_is_full_refuses_the_client_who_may_try_again(house):
    supervisor = DynamicSupervisor.start_link(max_children=1)
    daemon = house.daemon(server_supervisor=supervisor)
    first = connected(house, daemon)
    cause = refused(house, daemon)
    assert isinstance(cause, erps.Overloaded)
    assert "max_children" in str(cause)
    assert cause.retry_after > 0
    assert daemon.info()["refused"] == 1
    first.close()
    until(lambda: daemon.servers == [])
    assert connected(house, daemon).call(("echo", 1), timeout=PATIENCE) == 1
    erps.kill(supervisor)


@pytest.mark.parametrize("dead", [True, False], ids=["dead", "unknown"])
def test_without_its_supervisor_a_client_is_refused_with_that_reason_and_served_when_it_is_back(house, dead, caplog):
    if dead:
        erps.kill(pid := DynamicSupervisor.start_link(name="back again"))
        ended(pid)
    daemon = house.daemon(server_supervisor="back again")
    cause = refused(house, daemon)
    assert isinstance(cause, erps.StartError)
    assert cause.reason is erps.NOPROC
    assert "supervisor" in str(cause)
    assert "'back again' starts no server" in caplog.text
    supervisor = DynamicSupervisor.start_link(name="back again")
    assert connected(house, daemon).call(("echo", 1), timeout=PATIENCE) == 1
    erps.kill(supervisor)
    ended(supervisor)


def test_a_dead_pid_of_a_supervisor_refuses_too(plain_house):
    supervisor = DynamicSupervisor.start_link()
    daemon = plain_house.daemon(server_supervisor=supervisor)
    client = connected(plain_house, daemon)
    erps.kill(supervisor)
    until(lambda: client.stats["lost"])
    assert refused(plain_house, daemon).reason is erps.NOPROC


class Odd:
    """An object with start_child that is not what it should be."""

    def __init__(self, act):
        self.start_child = act


def fails(spec):
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("act", "text"),
    [(fails, "RuntimeError: out of order"), (lambda spec: None, "returns no Pid")],
    ids=["fails", "None"],
)
def test_a_supervisor_that_is_out_of_order_refuses_the_client_and_the_daemon_lives(plain_house, act, text, caplog):
    daemon = plain_house.daemon(server_supervisor=Odd(act))
    cause = refused(plain_house, daemon)
    assert isinstance(cause, erps.StartError)
    assert text in str(cause)
    assert caplog.records[0].levelno == logging.WARNING
    assert daemon.started


@pytest.mark.parametrize(
    ("answer", "cause", "text"),
    [
        (Ignore(), erps.StartIgnored, "Ignore"),
        (Stop("full"), erps.StartError, "full"),
        (1, erps.StartError, "returned 1"),
    ],
    ids=["ignore", "stop", "nonsense"],
)
def test_an_init_that_comes_to_nothing_is_told_as_without_a_supervisor(house, connections, answer, cause, text):
    class Declining(erps.Server, identifier="lab"):
        def init(self):
            return answer

    daemon = house.daemon(Declining, server_supervisor=connections)
    error = refused(house, daemon)
    assert isinstance(error, cause)
    assert text in str(error)
    assert DynamicSupervisor.count_children(connections)["specs"] == 0


def test_a_crash_right_after_init_is_told_with_its_reason(plain_house, connections):
    class Hasty(erps.Server, identifier="lab"):
        def init(self):
            return Ok(Continue(None))

        def handle_continue(self, argument):
            raise LookupError("no such page")

    notes = Notes()
    daemon = plain_house.daemon(Hasty, server_supervisor=connections)
    plain_house.client(daemon, notes).connect()
    error = notes.wait("disconnect")[0]
    assert isinstance(error, erps.ServerExit)
    assert error.kind == "LookupError"
    assert daemon.started


def test_a_client_that_leaves_while_the_supervisor_is_busy_gets_no_server(plain_house, connections):
    gate = Gate()

    class Slow(Lab):
        def init(self):
            gate()
            super().init()

    daemon = plain_house.daemon(Slow, server_supervisor=connections)
    plain_house.client(daemon).connect()
    gate.entered.wait(PATIENCE)
    second = plain_house.client(daemon)
    second.connect()
    until(lambda: daemon.info()["handshakes"] == 0 and daemon.info()["accepted"] == 2)
    stopping = gevent.spawn(daemon.stop, timeout=0)
    stopping.join(timeout=PATIENCE)
    gate.open()
    until(lambda: DynamicSupervisor.count_children(connections)["specs"] == 0)
    assert daemon.servers == []


def test_a_daemon_that_dies_leaves_supervised_servers_to_their_supervisor(house, connections, tree):
    """Row 111 of the original: the listening socket closes, and servers under a supervisor live on."""
    notes = Notes()
    top = tree([daemon_spec(house, {}, notes, server_supervisor=connections)])
    first = child(top)
    client = connected(house, first)
    old = Daemon.of(first)
    erps.kill(first)
    second = Daemon.of(successor(top, first))
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert client.stats["lost"] == client.stats["moves"] == 0
    connected(house, second).call(("echo", 2), timeout=PATIENCE)
    assert DynamicSupervisor.count_children(connections)["active"] == 2
    DynamicSupervisor.terminate_child(connections, old.servers[0].pid)
    healed(client)
    assert len(second.servers) == 2
    assert notes.of("terminate") == []


def test_rest_for_one_restarts_servers_and_daemon_and_the_clients_heal(house, tree):
    supervisor = erps.child_spec(
        (DynamicSupervisor,), id="servers", start=(DynamicSupervisor.start_link, (), {"name": "s"})
    )
    top = tree([supervisor, daemon_spec(house, server_supervisor="s")], strategy="rest_for_one")
    servers, daemon = child(top, 0), child(top, 1)
    client = connected(house, daemon)
    erps.kill(servers)
    successor(top, daemon, 1)
    healed(client)
    assert DynamicSupervisor.count_children("s")["active"] == 1


def test_garbage_reaches_no_supervisor(house, connections):
    daemon = house.daemon(server_supervisor=connections)
    house.raw(daemon).sendall(b"GET / HTTP/1.1\r\n\r\n")
    until(lambda: daemon.info()["handshake_failures"] == 1)
    assert DynamicSupervisor.count_children(connections)["specs"] == 0
    assert connected(house, daemon).call(("echo", 1), timeout=PATIENCE) == 1


def test_a_supervisor_of_another_thread_is_refused_by_name(plain_house):
    started, over = Event(), Event()
    found = []
    here = gevent.get_hub()

    def elsewhere():
        supervisor = DynamicSupervisor.start_link()
        found.append(supervisor)
        here.loop.run_callback_threadsafe(started.set)
        supervisor.process.join(PATIENCE)

    gone = gevent.spawn(here.threadpool.apply, elsewhere)
    started.wait(PATIENCE)
    daemon = plain_house.daemon(server_supervisor=found[0])
    assert "another thread" in str(refused(plain_house, daemon))
    erps.kill(found[0])
    gone.join(timeout=PATIENCE)
    over.set()


# Clients in a tree.


def test_a_child_spec_of_a_client_has_the_class_and_the_address_for_its_id():
    spec = LabClient.child_spec(("127.0.0.1", 1), transport=erps.Tcp())
    assert spec["id"] == (LabClient, ("127.0.0.1", 1))
    assert (spec["restart"], spec["shutdown"]) == ("permanent", 5.0)
    assert spec["start"][0] == LabClient.start_link
    spec = LabClient.child_spec(["127.0.0.1", 1], transport=erps.Tcp(), id="lab", restart="transient", name="lab")
    assert (spec["id"], spec["restart"]) == ("lab", "transient")
    assert LabClient.child_spec(["127.0.0.1", 1], transport=erps.Tcp())["id"] == (LabClient, ("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"transport": None}, erps.ConfigError, "transport"),
        ({"restart": "always"}, erps.ConfigError, "restart is one of"),
        ({"reconect": 1}, TypeError, "did you mean 'reconnect'"),
        ({"timeout": "long"}, erps.ConfigError, "timeout"),
    ],
)
def test_what_is_wrong_with_a_child_spec_of_a_client_is_said_at_once(change, error, text):
    with pytest.raises(error, match=text):
        LabClient.child_spec(("127.0.0.1", 1), **{"transport": erps.Tcp(), **change})


def client_spec(house, daemon, *args, **options):
    return LabClient.child_spec(daemon.address, *args, transport=house.wire.client, hub="here", **options)


@pytest.mark.parametrize("restart", ["permanent", "transient"])
def test_has_the_client_reconnect_if_it_dies(house, tree, restart):
    """otp_test.exs "has the client reconnect if it dies"."""
    daemon, notes = house.daemon(), Notes()
    top = tree([client_spec(house, daemon, notes, restart=restart, name="lab client")])
    first = child(top)
    notes.wait("connect")
    erps.kill(first)
    successor(top, first)
    notes.wait("connect", 2)
    assert erps.call("lab client", ("echo", 1), timeout=PATIENCE) == 1
    daemon.broadcast("ping")
    assert "ping" in notes.wait("push")


@pytest.mark.parametrize("restart", ["permanent", "transient"])
def test_a_client_that_does_not_heal_is_restarted_when_its_server_dies(house, tree, restart):
    """otp_test.exs "the server dies; client will get killed", and "has the server reconnect if it dies"."""
    daemon, notes = house.daemon(Lab, {"crash": crash}), Notes()
    top = tree([client_spec(house, daemon, notes, restart=restart, heal=False, name="lab client")])
    first = child(top)
    watch = erps.monitor(first)
    with pytest.raises(erps.ServerExit):
        erps.call("lab client", ("crash",), timeout=PATIENCE)
    down = erps.receive(lambda message: isinstance(message, erps.Down) and message.ref == watch, timeout=PATIENCE)
    assert down.reason == "disconnected"
    successor(top, first)
    notes.wait("connect", 2)
    assert erps.call("lab client", ("echo", 1), timeout=PATIENCE) == 1
    assert isinstance(notes.of("disconnect")[0], erps.ServerExit)
    assert notes.of("terminate") == ["disconnected"]


def test_a_client_that_heals_is_none_of_its_supervisors_business(house, tree):
    daemon = house.daemon(Lab, {"crash": crash})
    top = tree([client_spec(house, daemon, name="lab client")], max_restarts=0)
    pid = child(top)
    for _ in range(3):
        with pytest.raises(erps.ServerExit):
            erps.call("lab client", ("crash",), timeout=PATIENCE)
        pid.process.gateway.wait_connected(PATIENCE)
    assert child(top) is pid


def test_clients_that_cannot_connect_and_do_not_heal_use_up_the_intensity(plain_house, tree):
    """Row 30 of the original: heal=True, or a back-off in the child spec, is what a flapping peer asks for."""
    spec = LabClient.child_spec(("127.0.0.1", free_port()), transport=plain_house.wire.client, hub="here", heal=False)
    assert ended(tree([spec])) is erps.SHUTDOWN
    slow = tree([{**spec, "backoff": (SECOND, 60 * SECOND)}])
    first = Supervisor.which_children(slow)[0][1]
    ended(first)
    until(lambda: Supervisor.which_children(slow)[0][1] is erps.RESTARTING)
    assert slow.is_alive()


def test_the_end_of_the_tree_says_bye_for_its_clients(house, tree):
    daemon = house.daemon()
    top = tree([client_spec(house, daemon, name="lab client")])
    erps.call("lab client", ("echo", 1), timeout=PATIENCE)
    erps.stop(top)
    until(lambda: daemon.servers == [])
    assert daemon.info()["handshake_failures"] == 0


def test_a_killed_client_takes_its_line_along_and_pending_calls_fail_at_once(house):
    gate = Gate()
    daemon = house.daemon(Lab, {"gate": gate})
    pid = LabClient.start_link(daemon.address, transport=house.wire.client, hub="here")
    pending = gevent.spawn(erps.call, pid, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    erps.kill(pid)
    with pytest.raises(erps.Disconnected, match="killed") as caught:
        pending.get(timeout=PATIENCE)
    assert caught.value.sent is True
    gate.open()
    until(lambda: daemon.servers == [])


def test_a_client_is_called_by_its_name_in_a_registry(house):
    registry = erps.Registry.start_link(keys="unique", name="services")
    daemon, name = house.daemon(), erps.Via("services", "lab")
    pid = LabClient.start_link(daemon.address, transport=house.wire.client, hub="here", name=name)
    assert erps.whereis(name) is pid
    assert erps.call(name, ("echo", 1), timeout=PATIENCE) == 1
    erps.cast(name, "told")
    with pytest.raises(erps.AlreadyStarted) as caught:
        LabClient.start_link(daemon.address, transport=house.wire.client, hub="here", name=name)
    assert caught.value.pid is pid
    erps.stop(name)
    assert erps.whereis(name) is None
    erps.stop(registry)


def test_a_client_that_is_called_by_name_while_its_init_runs_answers_when_it_is_connected(house, hub):
    gate = Gate()

    class Slow(LabClient):
        def init(self):
            gate()
            super().init()

    daemon = house.daemon()
    options = {"transport": house.wire.client, "hub": hub, "name": "slow client"}
    starting = gevent.spawn(Slow.start, daemon.address, **options)
    until(gate.entered.is_set)
    early = gevent.spawn(erps.call, "slow client", ("echo", 1), timeout=PATIENCE)
    gevent.idle()
    gate.open()
    assert early.get(timeout=PATIENCE) == 1
    erps.stop(starting.get(timeout=PATIENCE))


def test_a_client_whose_init_calls_the_server_is_told_where_to_do_that(house):
    class Eager(LabClient):
        def init(self):
            self.call(("echo", 1))

    with pytest.raises(erps.StartError, match="in handle_connect or handle_continue") as caught:
        Eager.start(house.daemon().address, transport=house.wire.client, hub="here")
    assert isinstance(caught.value.reason, erps.CallingSelf)


def test_a_server_without_a_daemon_is_a_child_like_any_other(tree):
    top = tree([(Lab, {})])
    pid = child(top)
    assert erps.call(pid, ("echo", 1)) == 1
    assert erps.info(pid)["parent"] is top


# Universes.


class Where(erps.Server, identifier="lab"):
    def handle_call(self, request, from_):
        return Reply(erps.universe.current().serial)


class WhereClient(erps.Client, identifier="lab", version="1.0.0"):
    def init(self, note):
        note("client universe", erps.universe.current())


def ask_where(house, daemon, note):
    pid = WhereClient.start_link(daemon.address, note, transport=house.wire.client, hub="here", forward_callers=True)
    try:
        return pid.call("where", timeout=PATIENCE)
    finally:
        erps.stop(pid)


@pytest.fixture
def here():
    """The universe of the test."""
    with erps.universe.fresh():
        yield erps.universe.current()


def test_servers_and_clients_get_instantiated_with_the_correct_callers_value(house, here):
    """multiverse_test.exs:43, by that name."""
    notes = Notes()
    daemon = Daemon.of(house.process(Where, forward_callers=True))
    assert ask_where(house, daemon, notes) == here.serial
    assert notes.of("client universe") == [here]


@pytest.mark.parametrize("restart", [False, True], ids=["at first", "after a restart of the supervisor"])
def test_servers_get_the_correct_callers_value_when_supervised(house, here, restart):
    """multiverse_test.exs:54, by that name: the supervisor lives elsewhere."""
    elsewhere = Parent.start(True)
    supervisor = elsewhere.call(lambda: DynamicSupervisor.start_link(name="elsewhere"))
    daemon = Daemon.of(house.process(Where, server_supervisor="elsewhere", forward_callers=True))
    if restart:
        erps.kill(supervisor)
        ended(supervisor)
        elsewhere.call(lambda: DynamicSupervisor.start_link(name="elsewhere"))
    assert ask_where(house, daemon, Notes()) == here.serial
    erps.kill(elsewhere)
    until(lambda: erps.whereis("elsewhere") is None)


def test_tcp_ip_can_be_a_wormhole_between_universes(house, here):
    """multiverse_test.exs:74, by that name."""
    elsewhere = Parent.start()
    daemon = Daemon.of(elsewhere.call(lambda: house.process(Where, forward_callers=True)))
    notes = Notes()
    assert ask_where(house, daemon, notes) == elsewhere.serial != here.serial
    assert notes.of("client universe") == [here]
    erps.stop(elsewhere, erps.SHUTDOWN)


def test_without_forward_callers_each_is_a_universe_of_its_own(house, here):
    daemon = house.daemon(Where)
    client = house.client(daemon)
    assert client.call("where", timeout=PATIENCE) == daemon.servers[0].pid.serial
    assert erps.info(client.pid)["callers"] == []


def test_a_daemon_and_a_client_may_be_made_here_and_started_anywhere(house, here):
    daemon = erps.Daemon(("127.0.0.1", 0), Where, transport=house.wire.server, forward_callers=True)
    house.daemons.append(daemon)
    gevent.spawn(daemon.start).join()
    client = house.client(daemon, forward_callers=True)
    assert gevent.spawn(client.call, "where", timeout=PATIENCE).get(timeout=PATIENCE) == here.serial
    assert erps.info(client.pid)["callers"][-1] is here


def test_forward_callers_of_a_server_class_is_enough(plain_house, here):
    class Forwarding(Where, forward_callers=True):
        pass

    daemon = plain_house.daemon(Forwarding)
    assert plain_house.client(daemon).call("where", timeout=PATIENCE) == here.serial
