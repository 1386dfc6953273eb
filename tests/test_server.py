"""The server process at the end of a line: its callbacks, its peer, its answers, and how it ends."""

from __future__ import annotations

import logging
import threading

import gevent
import pytest
from ends import block
from faces import PATIENCE, Gate, House, Lab, Notes, until, wire
from gevent.event import Event
from support import MS, Certs

import erps_gevent as erps
from erps_gevent import Continue, IdleTimeout, NoReply, Ok, Reply, Stop


def served(house, *args, client=(), server=Lab, **options):
    """(daemon, client) that are connected."""
    daemon = house.daemon(server, *args, **options)
    made = house.client(daemon, *client)
    made.wait_connected(timeout=PATIENCE)
    return daemon, made


class Greeter(erps.Server, identifier="lab"):
    def init(self, note):
        self.note = note
        self.push("from init")
        return Ok(then=Continue("go on"))

    def handle_continue(self, argument):
        self.note("continue", argument)
        self.push("from handle_continue")

    def handle_call(self, request, from_):
        self.push("from handle_call")
        return Reply(request, then=Continue("after a call"))


def test_pushes_come_in_order_from_init_on_and_none_overtakes_the_welcome(house):
    noted, mine = Notes(), Notes()
    _, client = served(house, noted, server=Greeter, client=[mine])
    assert client.call("x", timeout=PATIENCE) == "x"
    pushes = mine.wait("push", 4)
    assert pushes == ["from init", "from handle_continue", "from handle_call", "from handle_continue"]
    assert mine.all[0][0] == "connect"
    assert noted.of("continue") == ["go on", "after a call"]


class Idler(erps.Server, identifier="lab"):
    def init(self, note):
        self.note = note

    def handle_call(self, request, from_):
        return Reply("soon", then=IdleTimeout(request))

    def handle_info(self, message):
        self.note("info", message)
        self.push("idle")


def test_keepalives_do_not_put_off_the_idle_timeout(house):
    noted, mine = Notes(), Notes()
    daemon = house.daemon(Idler, noted)
    client = house.client(daemon, mine, keepalive=10 * MS)
    client.call(100 * MS, timeout=PATIENCE)
    before = daemon.servers[0].received_bytes
    with gevent.Timeout(1000 * MS, AssertionError("the keepalives put it off")):
        assert mine.wait("push") == ["idle"]
    assert noted.of("info") == [erps.TIMEOUT]
    assert daemon.servers[0].received_bytes > before


def test_a_deferred_answer_leaves_the_server_free_meanwhile(house):
    gate = Gate()
    acts = {"later": lambda server, from_: server.defer(from_, lambda: gate().value)}
    _, client = served(house, acts)
    later = gevent.spawn(client.call, ("later",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    gate.open()
    assert later.get(timeout=PATIENCE) == "through"


def test_a_deferred_function_may_refuse(house):
    def refuse():
        raise erps.ErrorReply("sold_out", "come back tomorrow", {"sku": 7})

    _, client = served(house, {"later": lambda server, from_: server.defer(from_, refuse)})
    with pytest.raises(erps.ErrorReply) as caught:
        client.call(("later",), timeout=PATIENCE)
    assert (caught.value.kind, caught.value.message, caught.value.data) == (
        "sold_out",
        "come back tomorrow",
        {"sku": 7},
    )
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


def test_a_deferred_function_that_fails_ends_the_server_and_the_caller_is_told(house):
    acts = {"later": lambda server, from_: server.defer(from_, lambda: 1 // 0)}
    _, client = served(house, acts)
    with pytest.raises(erps.ServerExit) as caught:
        client.call(("later",), timeout=PATIENCE)
    assert caught.value.kind == "ZeroDivisionError"


class Unprintable(Exception):
    def __str__(self):
        return f"code {None:d}"


def fail_unprintably(*_):
    raise Unprintable


def test_an_exception_that_cannot_be_printed_ends_the_server_and_the_caller_is_told(house):
    daemon, client = served(house, {"boom": fail_unprintably})
    with pytest.raises(erps.ServerExit) as caught:
        client.call(("boom",), timeout=PATIENCE)
    assert caught.value.kind == "Unprintable"
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1
    assert len(daemon.servers) == 1


def test_an_init_that_fails_unprintably_leaves_no_slot_taken(house):
    class Failing(erps.Server, identifier="lab"):
        init = fail_unprintably

    daemon = house.daemon(Failing, max_connections=1)
    for _ in range(3):
        client = house.client(daemon)
        with pytest.raises(erps.Disconnected) as caught:
            client.call("hello", timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, erps.StartError)
        client.close()


def test_run_blocking_does_not_stop_the_hub(house):
    native = threading.Event()
    acts = {"blocking": lambda server, from_: Reply(server.run_blocking(native.wait, PATIENCE))}
    daemon, client = served(house, acts)
    blocked = gevent.spawn(client.call, ("blocking",), timeout=PATIENCE)
    neighbour = house.client(daemon)
    assert neighbour.call(("echo", "free"), timeout=PATIENCE) == "free"
    assert not blocked.ready()
    native.set()
    assert blocked.get(timeout=PATIENCE) is True


def test_a_native_thread_may_answer(house):
    froms = []

    def keep(server, from_):
        froms.append(from_)
        return NoReply()

    _, client = served(house, {"keep": keep})
    call = gevent.spawn(client.call, ("keep",), timeout=PATIENCE)
    from_ = until(lambda: froms and froms[0])
    gevent.get_hub().threadpool.apply(from_.reply, ("from a thread",))
    assert call.get(timeout=PATIENCE) == "from a thread"


def test_a_second_answer_is_dropped_and_a_from_knows_its_caller(house):
    seen = []

    def twice(server, from_):
        seen.append((from_.is_remote, erps.is_remote(from_), from_.remaining()))
        from_.reply("first")
        from_.reply("second")
        from_.fail(erps.ErrorReply("third"))
        return Reply("fourth")

    _, client = served(house, {"twice": twice})
    assert client.call(("twice",), timeout=PATIENCE) == "first"
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    (here, there, remaining) = seen[0]
    assert here
    assert there
    assert 0 < remaining <= PATIENCE


def test_the_deadline_of_a_caller_that_waits_for_ever_is_none(plain_house):
    _, client = served(plain_house, {"left": lambda server, from_: Reply(from_.remaining())})
    assert client.call(("left",), timeout=None) is None


@pytest.mark.parametrize("version", ["tls1.2", "tls1.3"])
def test_a_server_knows_who_its_peer_is(certs, version):
    def who(server, from_):
        peer = server.peer
        return Reply((peer.address[0], peer.subject, peer.sans, peer.tls_version))

    house = House(wire(version, certs))
    daemon, client = served(house, {"who": who})
    address, subject, sans, tls_version = client.call(("who",), timeout=PATIENCE)
    assert address == "127.0.0.1"
    assert "CN=alice" in subject
    assert "alice" in sans
    assert tls_version == f"TLSv{version[3:]}"
    assert "localhost" in client.peer.sans
    assert daemon.servers[0].subject == subject
    house.close()


def test_a_one_way_client_has_no_subject(certs):
    house = House(wire("one way", certs))
    _, client = served(house, {"who": lambda server, from_: Reply((server.peer.subject, server.peer.sans))})
    assert client.call(("who",), timeout=PATIENCE) == (None, ())
    house.close()


@pytest.mark.parametrize("listener", [("::1", 0), "unix"])
def test_other_families_work_too(kind, certs, tmp_path, listener):
    house = House(wire(kind, certs))
    where = str(tmp_path / "s") if listener == "unix" else listener
    daemon = house.daemon(listener=where)
    client = house.client(where if listener == "unix" else daemon.address[:2])
    assert client.call(("echo", kind), timeout=PATIENCE) == kind
    house.close()


def test_disconnect_from_inside_ends_the_process_after_what_is_in_its_mailbox(house):
    noted = Notes()

    def leave(server, from_):
        server.disconnect()
        return Reply("last")

    _, client = served(house, {"leave": leave}, noted, client=[mine := Notes()])
    assert client.call(("leave",), timeout=PATIENCE) == "last"
    assert noted.wait("terminate") == [erps.NORMAL]
    (error,) = mine.wait("disconnect")
    assert isinstance(error, erps.ServerExit)
    assert error.reason is erps.NORMAL
    mine.wait("connect", 2)


def test_disconnect_and_push_from_outside(house):
    noted, mine = Notes(), Notes()
    daemon, client = served(house, {}, noted, client=[mine])
    pid = daemon.servers[0].pid
    erps.push(pid, {"hello": 1})
    assert mine.wait("push") == [{"hello": 1}]
    gevent.get_hub().threadpool.apply(erps.push, (pid, "from a thread"))
    assert mine.wait("push", 2)[1] == "from a thread"
    erps.disconnect(pid)
    assert noted.wait("terminate") == [erps.NORMAL]
    erps.disconnect(pid)
    with pytest.raises(erps.Disconnected, match="line") as caught:
        erps.push(pid, "too late")
    assert caught.value.sent is False
    assert not isinstance(caught.value, erps.CallTimeout)
    mine.wait("disconnect")  # or the call meets the line that is just ending
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1


def test_a_push_from_a_thread_waits_no_longer_than_its_timeout_for_a_hub_that_does_not_turn(house):
    daemon, _ = served(house)
    pid = daemon.servers[0].pid

    def attempt():
        with pytest.raises(erps.CallTimeout) as caught:
            erps.push(pid, "too late", 5 * MS)
        return caught.value

    pushing = gevent.get_hub().threadpool.spawn(attempt)
    block(300 * MS)
    assert pushing.get(timeout=PATIENCE).sent is False


def test_a_crash_right_after_init_is_told_with_its_reason(house):
    class Rash(erps.Server, identifier="lab"):
        def init(self):
            return Ok(then=Continue("go on"))

        def handle_continue(self, argument):
            raise KeyError(argument)

    mine = Notes()
    daemon = house.daemon(Rash)
    house.client(daemon, mine).connect()
    assert mine.wait("disconnect")[0].kind == "KeyError"


def test_a_server_without_a_daemon_is_a_gen_server_without_a_line():
    pid = Lab.start({"peer": lambda server, from_: Reply(server.peer), "push": push_it})
    assert pid.call(("peer",)) is None
    with pytest.raises(erps.ErrorReply) as caught:
        pid.call(("push",))
    assert "without a daemon" in caught.value.message
    with pytest.raises(erps.Disconnected, match="no line"):
        erps.push(pid, 1)
    erps.stop(pid)


def push_it(server, from_):
    try:
        server.push(1)
    except erps.Disconnected as error:
        raise erps.ErrorReply("no_line", str(error)) from error


def test_a_server_whose_line_ends_terminates_quietly(house, caplog):
    noted = Notes()
    _, client = served(house, {}, noted)
    with caplog.at_level(logging.INFO, "erps_gevent"):
        client.close()
        assert noted.wait("terminate") == [erps.Shutdown("disconnected")]
        until(lambda: any("bye" in record.getMessage() for record in caplog.records), "the log")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_client_that_is_cut_off_ends_its_server_quietly_too(plain_house, caplog):
    noted = Notes()
    _, client = served(plain_house, {}, noted)
    with caplog.at_level(logging.INFO, "erps_gevent"):
        client._lifeline.healer.line.drop()
        assert noted.wait("terminate") == [erps.Shutdown("disconnected")]
    records = [record for record in caplog.records if "Lab of" not in record.getMessage()]
    assert [r for r in records if r.levelno >= logging.ERROR] == []


def test_a_call_that_was_given_up_before_it_began_is_not_begun(house):
    gate = Gate()
    begun = []
    acts = {"gate": gate, "count": lambda server, from_: begun.append(1) or Reply(None)}
    _, client = served(house, acts)
    gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    with pytest.raises(erps.CallTimeout) as caught:
        client.call(("count",), timeout=20 * MS)
    assert caught.value.sent
    gate.open()
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert begun == []


def test_stop_with_a_reply_terminates_first_and_then_answers(house):
    noted = Notes()
    acts = {"bye": lambda server, from_: Stop(erps.Shutdown("done"), reply=len(noted.of("terminate")))}
    _, client = served(house, acts, noted)
    assert client.call(("bye",), timeout=PATIENCE) == 0
    assert noted.of("terminate") == [erps.Shutdown("done")]


def test_casts_are_taken_in_order_and_answered_by_nobody(house):
    noted = Notes()
    _, client = served(house, {}, noted)
    for number in range(100):
        client.cast(("n", number))
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert noted.of("cast") == [("n", number) for number in range(100)]


def test_messages_of_this_program_reach_a_connected_server(house):
    noted = Notes()
    daemon, client = served(house, {}, noted)
    pid = daemon.servers[0].pid
    pid.send("hello")
    assert pid.call(("echo", "local")) == "local"
    assert noted.of("info") == ["hello"]
    assert client.connected


def test_a_push_to_a_client_that_does_not_read_fails_in_time(plain_house):
    big = b"x" * 300_000
    errors = []

    def flood(server, from_):
        try:
            while True:
                server.push(big, timeout=20 * MS)
        except erps.CallTimeout as error:
            errors.append(error)
            return Reply("full")

    daemon = plain_house.daemon(Lab, {"flood": flood})
    client = plain_house.client(daemon, max_pushes=1_000_000)
    client.wait_connected(PATIENCE)
    line = client._lifeline.healer.line
    line.watcher.stop()
    _, frame = line.session.call(("flood",), None)
    line.outbox.write(frame)
    (error,) = until(lambda: errors)
    assert "not reading" in str(error)
    assert error.sent is False


def test_a_refused_handler_leaves_the_server_alive(house):
    def refuse(server, from_):
        raise erps.ErrorReply("no")

    noted = Notes()
    _, client = served(house, {"no": refuse}, noted)
    for _ in range(3):
        with pytest.raises(erps.ErrorReply):
            client.call(("no",), timeout=PATIENCE)
    assert noted.of("terminate") == []
    assert client.stats["connects"] == 1


def test_one_server_per_line(certs: Certs):
    house = House(wire("tcp", certs))
    daemon, one = served(house)
    two = house.client(daemon)
    two.wait_connected(PATIENCE)
    assert len({live.pid for live in daemon.servers}) == 2
    house.close()
    assert one.connected is False


def test_work_that_nobody_waits_for_any_more_counts_until_it_ends(plain_house):
    gate = Event()
    begun = []

    def work(server, from_):
        return server.defer(from_, lambda: begun.append(1) or gate.wait())

    client = plain_house.client(plain_house.daemon(Lab, {"work": work}, max_pending=3))
    client.wait_connected()
    for count in range(3):
        call = gevent.spawn(client.call, ("work",), timeout=PATIENCE)
        until(lambda count=count: len(begun) > count)
        call.kill()
    with pytest.raises(erps.Overloaded):
        client.call(("work",), timeout=PATIENCE)
    assert len(begun) == 3
    gate.set()
    until(lambda: client.call(("echo", 1), timeout=PATIENCE) == 1)
    assert client.call(("work",), timeout=PATIENCE) is True


# An operator's view.


def test_a_suspended_server_does_not_serve_its_line_until_it_is_resumed(house):
    daemon, client = served(house)
    pid = daemon.servers[0].pid
    erps.sys.suspend(pid)
    call = gevent.spawn(client.call, ("echo", 1), PATIENCE)
    with pytest.raises(erps.CallTimeout):
        client.call(("echo", 2), timeout=20 * MS)
    assert erps.sys.get_status(pid)["status"] == "suspended"
    assert not call.ready()
    erps.sys.resume(pid)
    assert call.get(timeout=PATIENCE) == 1
    assert client.stats["lost"] == 0


def test_a_suspended_server_can_be_disconnected_and_drained(plain_house):
    noted = Notes()
    daemon, client = served(plain_house, {}, noted)
    erps.sys.suspend(daemon.servers[0].pid)
    erps.disconnect(daemon.servers[0].pid)
    assert noted.wait("terminate") == [erps.NORMAL]
    client.wait_connected(PATIENCE)
    until(lambda: daemon.servers)
    erps.sys.suspend(daemon.servers[0].pid)
    daemon.stop(timeout=0)
    assert noted.of("terminate")[1] is erps.SHUTDOWN


def test_a_suspended_server_whose_line_ends_ends_when_it_is_resumed(plain_house):
    noted = Notes()
    daemon, client = served(plain_house, {}, noted)
    pid = daemon.servers[0].pid
    erps.sys.suspend(pid)
    client.close()
    assert erps.sys.get_status(pid)["status"] == "suspended"
    erps.sys.resume(pid)
    assert noted.wait("terminate") == [erps.Shutdown("disconnected")]


def test_the_state_of_a_server_is_its_user_s(plain_house):
    noted = Notes()
    daemon, client = served(plain_house, {}, noted)
    pid = daemon.servers[0].pid
    assert erps.sys.get_state(pid) == {"acts": {}, "note": noted}
    erps.sys.replace_state(pid, lambda state: {**state, "acts": {"new": lambda server, from_: Reply("act")}})
    assert client.call(("new",), timeout=PATIENCE) == "act"
    assert erps.sys.get_status(pid)["module"] is Lab


def test_a_crash_report_shows_what_format_state_leaves_of_the_state(plain_house, caplog):
    class Discreet(Lab):
        def format_state(self, state):
            return sorted(state)

    _, client = served(plain_house, {"crash": lambda server, from_: 1 // 0}, server=Discreet)
    with pytest.raises(erps.ServerExit):
        client.call(("crash",), timeout=PATIENCE)
    assert "state: ['acts', 'note']" in caplog.text
