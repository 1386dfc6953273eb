"""Calls that are sent now and waited for later.

The reply does not come through the mailbox, so `receive` never sees it, and a process that forgets a request has no
stray message from it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.exceptions import LoopExit
from gevent.hub import Hub, get_hub

from erps_gevent.errors import CallTimeout, ConfigError, NoProc
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.gen import LocalGateway, dead_end, exit_error, resolve
from erps_gevent.otp.messages import Call, LocalFrom
from erps_gevent.otp.process import Pid, Process, current
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.waiting import TIMED_OUT, answer
from erps_gevent.otp.words import NOPROC

_check_timeout = behaviour.number(0, none=True)


class _Address(LocalFrom):
    """The reply address of a request; it keeps what has come until somebody waits for it.

    forget: undoes what the request has left elsewhere, once it is answered or abandoned.
    here:   True if that is a monitor only, of a local process, and no greenlet that makes the call.
    """

    __slots__ = ("forget", "here")

    def __init__(self, hub: Hub, caller: Pid | None) -> None:
        super().__init__(hub, None, caller)
        self.forget: Callable[[], object] | None = None
        self.here = False

    def settle(self) -> None:
        self.done = True
        forget, self.forget = self.forget, None
        if forget is not None:
            forget()

    def _reply(self, value: Any) -> None:
        self.settle()
        super()._reply(value)

    def _fail(self, error: Any) -> None:
        self.settle()
        super()._fail(error)


class RequestId:
    """A request that was sent; see send_request. Opaque. One that is dropped is executed all the same."""

    __slots__ = ("address", "request", "target")

    def __init__(self, target: Any, request: Any, hub: Hub, caller: Pid | None) -> None:
        self.target = target
        self.request = request
        self.address: _Address | None = _Address(hub, caller)

    def __del__(self) -> None:
        # Nobody can wait any more, and the monitor would stay for as long as the server lives. The greenlet that calls
        # for a client goes on: to end it could undo the request.
        address = self.address
        if address is not None and address.here:
            self.abandon()

    def __repr__(self) -> str:
        return f"<RequestId of {brief(self.request)} to {self.target!r}>"

    def wait(self, timeout: float | None) -> Any:
        """The reply. In the hub of the address."""
        address = self.address
        if address is None:
            raise _used(self)
        waiter = address.waiter
        del address
        try:
            value = answer(waiter, None if waiter.ready() else timeout)
        except LoopExit as nothing:
            raise dead_end(self.target, self.request) from nothing
        except Exception:
            self.address = None
            raise
        finally:
            # It may hold the error whose traceback will hold this frame.
            del waiter
        if value is TIMED_OUT:
            text = f"{self.target!r} did not answer in {timeout} s"
            raise CallTimeout(text, reason="timeout", request=self.request, sent=True)
        self.address = None
        return value

    def abandon(self) -> None:
        """Whatever comes now is dropped. From any thread; idempotent."""
        address, self.address = self.address, None
        if address is None:
            return
        if bridge.is_foreign(address.hub):
            bridge.hand_over(address.hub, address.settle)
        else:
            address.settle()


def send_request(target: Any, request: Any) -> RequestId:
    """Send a call and do not wait; `wait_response` or `receive_response` has the reply.

    target: as for `call`. If it is dead or unknown, waiting says so. The request to a local process is in its mailbox
            when this returns, after what was sent before. For a client a greenlet makes the call, which begins at the
            next switch.
    raises: TypeError  it is no target.
    switch: does not park.
    source: gen_server:send_request/2
    """
    caller = current()
    try:
        found: Any = resolve(target, request)
    except NoProc as error:
        found = error
    process: Process | None = found.process if isinstance(found, Pid) else None
    sent = RequestId(target, request, process.hub if process else get_hub(), caller.pid if caller else None)
    address = sent.address
    assert address is not None
    if isinstance(found, NoProc):
        address.exited(found.with_traceback(None))
    elif process is None:
        _send_elsewhere(address, found, request)
    else:
        address.here = isinstance(process.gateway, LocalGateway)
        send = _send_here if address.here else _send_elsewhere
        if bridge.is_foreign(process.hub):
            bridge.hand_over(process.hub, send, address, found, request)
        else:
            send(address, found, request)
    return sent


def _send_here(address: _Address, pid: Pid, request: Any) -> None:
    process = pid.process
    if not process.alive:
        address.exited(NoProc(f"{pid!r} is dead", reason=NOPROC, request=request))
        return
    monitor = process.monitor(lambda reason: address.exited(exit_error(reason, request)))
    address.forget = partial(process.demonitor, monitor)
    process.send(Call(request, address))


def _send_elsewhere(address: _Address, target: Any, request: Any) -> None:
    """In a greenlet, because to send may park; abandoned, it is killed, and the server is told that nobody waits."""

    def call() -> None:
        try:
            value = target.call(request, None)
        except Exception as error:  # noqa: BLE001  it is raised where the reply is waited for
            address.forget = None
            address.exited(error.with_traceback(None))
        else:
            address.forget = None
            address.reply(value)

    address.forget = partial(gevent.spawn(call).kill, block=False)


def wait_response(request_id: RequestId, timeout: float | None = 5.0) -> Any:
    """The reply to `request_id`. If none comes in time, one may wait again.

    timeout:  seconds; 0 looks whether it is there, None waits for ever.
    raises:   what `call` would: ErrorReply, and every CallExit; of these a CallTimeout of its own leaves the request
              as it is.
              ConfigError  its reply was taken, or it was abandoned.
    switch:   parks. From any thread.
    source:   gen_server:wait_response/2
    """
    if not isinstance(request_id, RequestId):
        raise TypeError(f"wait_response takes what send_request returned, not {request_id!r}")
    _check_timeout("timeout", timeout)
    address = request_id.address
    if address is None:
        raise _used(request_id)
    hub = address.hub
    del address
    if bridge.is_foreign(hub):
        return bridge.run_in(hub, request_id.wait, timeout, patience=timeout)
    return request_id.wait(timeout)


def receive_response(request_id: RequestId, timeout: float | None = 5.0) -> Any:
    """As wait_response, but nobody waits again: if no reply comes in time the request is abandoned.

    So it is if this greenlet is killed, or a gevent.Timeout fires. A reply that comes later is dropped; the server
    executes the request all the same, if it has it.
    source: gen_server:receive_response/2
    """
    try:
        return wait_response(request_id, timeout)
    finally:
        if isinstance(request_id, RequestId):
            request_id.abandon()


def _used(request_id: RequestId) -> ConfigError:
    return ConfigError(f"{request_id!r} has had its reply, or was abandoned; send_request sends another")
