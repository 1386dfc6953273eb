"""The generic half of a gen_server: takes events, runs callbacks, does what their answers say."""

from __future__ import annotations

import logging
import traceback
from time import monotonic
from typing import Any

from gevent import GreenletExit
from gevent.exceptions import LoopExit
from gevent.hub import Waiter

from erps_gevent.errors import BadReturn, EncodeError, ErrorReply, Exit, StartError, StartIgnored
from erps_gevent.otp.gen import LocalGateway, describe
from erps_gevent.otp.messages import (
    Call,
    Continue,
    Continuing,
    Event,
    IdleTimeout,
    Ignore,
    NoReply,
    Ok,
    Reply,
    Stop,
    StopRequest,
)
from erps_gevent.otp.process import ExitSignal, Pid, Process
from erps_gevent.otp.reasons import brief, cause_of, is_quiet
from erps_gevent.otp.system import System, formatted_state
from erps_gevent.otp.waiting import TIMED_OUT, answer
from erps_gevent.otp.watch import Watch
from erps_gevent.otp.words import ABSENT, HIBERNATE, KILLED, TIMEOUT

logger = logging.getLogger("erps_gevent")

KILL_WAIT = 0.1  # seconds that a start which took too long waits for the end of what it has killed


class Loop:
    """Runs the callbacks of `server` as `process`.

    server: the GenServer instance. A subclass of Loop may hold it weakly; it is asked for anew for each event.

    hibernate_after: seconds without an event after which the process hibernates; None never does.
    suspended:       sys.suspend was called, and sys.resume was not.
    watch:           what sys.statistics, sys.log and sys.trace have asked for, or None.
    """

    def __init__(self, process: Process, server: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.process = process
        self.instance = server
        self.args = args
        self.kwargs = kwargs
        self.starter: Waiter[Any] | None = None  # as long as the outcome of init is not known
        self.starter_monitor = 0
        self.hibernate_after: float | None = None
        self.suspended = False
        self.watch: Watch | None = None
        server._process = process
        process.gateway = LocalGateway(process)

    def server(self) -> Any:
        return self.instance

    # Starting.

    def start(self, name: str | None, timeout: float | None) -> Pid:
        """Spawn the process and wait for the outcome of init; see GenServer.start."""
        process = self.process
        waiter: Waiter[Any] = Waiter(process.hub)
        try:
            if name is not None:
                process.register(name)
            if process.parent is not None:
                process.link(process.parent)
            self.starter = waiter
            self.starter_monitor = process.monitor(self._failed)
            process.spawn(self.main)
            outcome = answer(waiter, timeout)
        except LoopExit as nothing:
            self._abandon()
            text = f"{process.label}.init waits for something that will never happen: nothing else is running"
            raise StartError(text, reason="deadlock") from nothing
        except BaseException:
            self._abandon()
            raise
        if outcome is TIMED_OUT:
            self._abandon()
            process.join(KILL_WAIT)
            raise StartError(f"{process.label}.init took longer than {timeout} s", reason="timeout")
        if outcome is None:
            return process.pid
        try:
            raise outcome
        finally:
            # Its traceback holds this frame, which would hold it in a cycle.
            del outcome

    def _failed(self, reason: Any) -> None:
        """The process has ended before init was done. The starter gets the error and no signal."""
        starter = self._settle()
        assert starter is not None  # the monitor that called this ends when the outcome is known
        self._unlink()
        self.process.hub.loop.run_callback(starter.switch, _start_error(self.process.label, reason))

    def _abandon(self) -> None:
        """The starter does not wait any more: what is being started must end, and has no name from now on."""
        self._settle()
        self._unlink()
        self.process.unregister()
        self.process.die(KILLED)

    def _settle(self) -> Waiter[Any] | None:
        starter, self.starter = self.starter, None
        self.process.demonitor(self.starter_monitor)
        return starter

    def _unlink(self) -> None:
        if self.process.parent is not None:
            self.process.unlink(self.process.parent)

    # Running.

    def main(self) -> None:
        then = self.init()
        starter = self._settle()
        if starter is None:
            return
        self.process.hub.loop.run_callback(starter.switch, None)
        # An init that has computed for long would have the starter run first, and an IdleTimeout(0) come too late.
        self.process.inbox.begin_turn()
        while True:
            then = self.handle(self.following(then))

    def init(self) -> Any:
        try:
            given = self.server()._begin(*self.args, **self.kwargs)
        except (Exit, GreenletExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  the starter is told, so it is not logged
            raise Exit(error) from None
        finally:
            del self.args, self.kwargs
        if given is None:
            return None
        if isinstance(given, Ok) and _is_then(given.then):
            return given.then
        if isinstance(given, Ignore):
            raise Exit(_IGNORED)
        if isinstance(given, Stop):
            raise Exit(given.reason)
        raise Exit(_bad_return(f"{self.process.label}.init", given, "None, Ok, Ignore or Stop"))

    def following(self, then: Any) -> Any:
        """The next event, as the last answer asked for it. What sys asks is answered on the way, and changes nothing.

        While the process is suspended all else waits in the inbox, but for what ends it.
        """
        deadline: float | None = None
        if then is None and self.hibernate_after is None:
            # The way of nearly every event.
            event = self.process.inbox.next()
        elif isinstance(then, Continue):
            self.process.inbox.take_turn()
            return Continuing(then.argument)
        else:
            if isinstance(then, IdleTimeout):
                deadline = monotonic() + then.seconds
            event = self.idle(then, deadline)
        while event.__class__ is System:
            event.run(self)
            event = self.process.inbox.select(self.is_urgent) if self.suspended else self.idle(then, deadline)
        return event

    def idle(self, then: Any, deadline: float | None) -> Any:
        """Wait for an event: until the deadline of an IdleTimeout, or hibernating, or neither."""
        process = self.process
        if deadline is not None:
            event = process.inbox.next(deadline)
            return TIMEOUT if event is None else event
        if then is None and not process.hibernating:
            after = self.hibernate_after
            event = process.inbox.next(None if after is None else monotonic() + after)
            if event is not None:
                return event
        process.hibernating = True
        event = process.inbox.next()
        process.hibernating = event.__class__ is System
        return event

    def is_urgent(self, message: Any) -> bool:
        """True for what a suspended process takes all the same."""
        return isinstance(message, System | StopRequest) or self.is_exit_of_parent(message)

    def is_exit_of_parent(self, message: Any) -> bool:
        parent = self.process.parent
        return isinstance(message, ExitSignal) and parent is not None and message.pid is parent.pid

    def handle(self, event: Any) -> Any:
        """Run the callback for one event; return what is to come next."""
        try:
            if self.watch is not None:
                given = self.watch.deliver(self, event)
            elif event.__class__ is Call:
                # The way of nearly every event.
                given = (self.instance or self.server()).handle_call(event.request, event.from_)
            else:
                given = self.deliver(event)
        except ErrorReply as refusal:
            return self.refuse(refusal, event)
        except Exit as exit_:
            if self.process.dying:
                raise
            return self.stop(exit_.reason, event)
        except (GreenletExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  a crash, reported once; gevent.Timeout and SystemExit are too
            return self.crash(error, event)
        if isinstance(given, Reply) and isinstance(event, Call):
            return self.reply(given, event)
        return self.obey(given, event)

    def deliver(self, event: Any) -> Any:
        server = self.server()
        if isinstance(event, Event):
            return event.deliver(server)
        if self.is_exit_of_parent(event):
            return Stop(event.reason)
        return server.handle_info(event)

    def obey(self, given: Any, event: Any) -> Any:
        """Do what a callback's answer says."""
        asked = isinstance(event, Call)
        if given is None and not asked:
            return None
        if isinstance(given, Stop):
            return self.stop(given.reason, event, given.reply)
        if isinstance(given, NoReply) and _is_then(given.then):
            return given.then
        legal = "Reply, NoReply or Stop" if asked else "None, NoReply or Stop"
        callback = event.callback if isinstance(event, Event) else Event.callback
        return self.crash(_bad_return(f"{self.process.label}.{callback}", given, legal), event)

    def reply(self, given: Reply, event: Call) -> Any:
        try:
            event.from_.reply(given.value)
        except EncodeError as error:
            return self.crash(error, event)
        then = given.then
        if then is None or _is_then(then):
            return then
        return self.crash(_bad_return(f"{self.process.label}.handle_call", given, "a Reply"), event)

    def refuse(self, refusal: ErrorReply, event: Any) -> Any:
        """An ErrorReply was raised: the answer to a call, and a crash anywhere else."""
        if not isinstance(event, Call):
            return self.crash(refusal, event)
        try:
            event.from_.fail(refusal)
        except EncodeError as error:
            return self.crash(error, event)
        return None

    # Ending.

    def stop(self, reason: Any, event: Any, reply: Any = ABSENT) -> Any:
        """End the process as a callback asked: terminate first, then the reply, then the exit."""
        final = self.terminate(reason)
        if reply is not ABSENT and isinstance(event, Call):
            try:
                event.from_.reply(reply)
            except EncodeError as error:
                final = error
        self.report(final, event)
        try:
            raise Exit(final)
        finally:
            # If `terminate` raised it, its traceback holds this frame, which would hold it in a cycle.
            del final

    def crash(self, error: BaseException, event: Any) -> Any:
        """End the process because of `error`; its callers get it as a ServerExit."""
        return self.stop(error, event)

    def terminate(self, reason: Any) -> Any:
        """Run the callback; an exception in it replaces the reason."""
        try:
            self.server().terminate(reason)
        except Exit as exit_:
            if self.process.dying:
                raise
            return exit_.reason
        except (GreenletExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  it becomes the reason
            return error
        return reason

    def report(self, reason: Any, event: Any) -> None:
        """Log a crash once, with the last message, who sent it and the state; quiet reasons leave nothing."""
        if is_quiet(reason):
            return
        trace = "".join(traceback.format_exception(reason)) if isinstance(reason, BaseException) else ""
        logger.error(
            "%r terminating\nreason: %s\nlast message: %s\nclient: %s\nstate: %s\n%s",
            self.process.pid,
            brief(reason),
            brief(event),
            event.from_ if isinstance(event, Call) else None,
            brief(formatted_state(self)),
            trace.rstrip(),
        )


_IGNORED = object()


def _is_then(then: Any) -> bool:
    return then is None or then is HIBERNATE or isinstance(then, Continue | IdleTimeout)


def _bad_return(who: str, given: Any, legal: str) -> BadReturn:
    text = f"{who} returned {brief(given)}; it may return {legal}, with then= None, Continue, IdleTimeout or HIBERNATE"
    return BadReturn(text, reason=given)


def _start_error(label: str, reason: Any) -> Exception:
    if reason is _IGNORED:
        return StartIgnored(f"{label}.init returned Ignore()")
    error = StartError(f"{label} did not start: {describe(reason)}", reason=reason)
    error.__cause__ = cause_of(reason)
    return error
