"""What every host of daemons does, be it gunicorn or `erps serve`: applications, and an end without a failed call.

An application is a `Server` class, or a factory `f(listener, transport) -> Daemon` for whoever wants to give `init`
arguments or the daemon options.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import gevent

from erps_gevent.daemon import Daemon
from erps_gevent.errors import ConfigError
from erps_gevent.otp.reasons import brief
from erps_gevent.server import Server
from erps_gevent.transport.tcp import Transport

App: TypeAlias = type[Server] | Callable[[Any, Transport], Daemon]

FORM = "give a subclass of erps_gevent.Server, or a factory f(listener, transport) that returns a Daemon"
WSGI = {"environ", "start_response"}


def load_app(where: str) -> App:
    """Import the application that `where` names: "module:Name", "package.module:factory".

    raises: ConfigError  there is no such module or name, or it is no application. What the module itself raises
                         passes through.
    """
    module_name, colon, name = where.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"{where!r} names no application; write module:Name, such as myapp:Counter")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        text = f"there is no module {exc.name!r} here; a module is named without .py, from the directory it is in"
        raise ConfigError(text) from exc
    try:
        app = getattr(module, name)
    except AttributeError as exc:
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{module_name!r} has no {name!r}{hint}") from exc
    return check_app(app, where)


def check_app(app: Any, where: str) -> App:
    """`app`, if it can be one.

    where:  what the user has written, for the error.
    raises: ConfigError  it is something else; the text says what, and what to give.
    """
    if inspect.isclass(app):
        if issubclass(app, Server):
            return app
        raise ConfigError(f"{where} is the class {app.__qualname__}, which is no Server; {FORM}")
    if isinstance(app, Daemon):
        raise ConfigError(f"{where} is a Daemon, with a listener of its own; {FORM}")
    if not callable(app):
        raise ConfigError(f"{where} is {brief(app)}; {FORM}")
    factory: App = app
    try:
        signature = inspect.signature(app)
    except ValueError:
        return factory  # Something written in C, which says nothing of its arguments.
    try:
        signature.bind(None, None)
    except TypeError as exc:
        raise ConfigError(f"{where} cannot be called with (listener, transport): {exc}; {FORM}") from exc
    if set(signature.parameters) >= WSGI:
        raise ConfigError(f"{where} is a WSGI application, which speaks HTTP; {FORM}")
    return factory


def daemon_of(app: App, listener: Any, transport: Transport, where: str, **options: Any) -> Daemon:
    """The daemon that serves `app` at `listener`; it does not listen yet.

    options: of the Daemon of a Server class. A factory sets its own.
    raises:  ConfigError  an option is wrong, or the factory failed or returned something else.
    """
    if isinstance(app, type):
        return Daemon(listener, app, transport=transport, **options)
    try:
        daemon = app(listener, transport)
    except Exception as exc:
        raise ConfigError(f"the factory {where} failed: {type(exc).__name__}: {exc}") from exc
    if not isinstance(daemon, Daemon):
        raise ConfigError(f"the factory {where} returned {brief(daemon)}; it is to return a Daemon")
    return daemon


def stop_all(daemons: Sequence[Daemon], timeout: float) -> list[gevent.Greenlet[..., Any]]:
    """Begin to stop all of them: the greenlets in which they do so, each in `timeout` seconds and two more.

    A client that is asked to move may not come to another listener of the same process, so all of them are closed
    before the first word is said.
    """
    for daemon in daemons:
        daemon.close()
    return [gevent.spawn(daemon.stop, timeout) for daemon in daemons]


def show_log(handlers: Sequence[logging.Handler]) -> None:
    """Have the library's warnings go where the host's do, unless the program has arranged that otherwise."""
    logger = logging.getLogger("erps_gevent")
    if not logger.handlers and not logging.getLogger().handlers:
        for handler in handlers:
            logger.addHandler(handler)
