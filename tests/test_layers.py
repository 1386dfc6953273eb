"""Imports point one way (DESIGN 5), and errors of the operating system stop at the edge.

The rules are the tables below; `violations` reads the sources and names every line that breaks one. A new module
has no layer until it is written into `LAYERS`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support import PACKAGE

# From the bottom up. A module imports from layers below its own, and from its own package (wire from wire).
LAYERS = (
    {"errors"},
    {"wire", "transport", "otp"},
    {"options", "outbox", "backoff", "moves", "alarm"},
    {"connection", "keepalive"},
    {"server_connection", "client_connection", "pacing"},
    {"etf_connection"},
    {"server", "healing", "client_loop", "dialects", "observing"},
    {"foreign"},
    {"client_hub"},
    {"lifeline", "lines"},
    {"acceptor", "live_servers", "daemon_process"},
    {"daemon", "client"},
    {"pool"},
    {"certs", "integrations"},
    {"testing"},
    {"demo"},
    {"cli"},
)
# Arrows upwards that are meant, to leaves: the hub thread, which a client or a daemon opens when it is asked for; the
# watch that a daemon has over its handlers; whoever holds a line, or makes some, has itself called in a forked child.
DOORS = {
    ("client_hub", "integrations.threads"),
    ("daemon", "integrations.threads"),
    ("daemon", "integrations.blocking"),
    *((module, "integrations.forks") for module in ("connection", "client_connection", "server_connection", "healing")),
    *((module, "integrations.forks") for module in ("client_hub", "lifeline", "lines", "acceptor", "daemon")),
}
ROOT = "__init__"  # the package root: it imports the faces, and nobody inside imports it

PURE = {"gevent", "greenlet", "socket", "select", "selectors", "ssl", "threading", "time", "logging", "asyncio"}
NO_NETWORK = {"socket", "ssl", "select", "selectors", "gevent.socket", "gevent.ssl", "gevent.server", "gevent.select"}
FORBIDDEN = {"errors": PURE, "wire": PURE, "otp": NO_NETWORK}

# Disconnected and CallTimeout are OSErrors: whoever catches that class elsewhere catches them by accident.
EDGE = "transport"
SYSTEM_ERRORS = {
    *("OSError", "IOError", "EnvironmentError", "ConnectionError", "ConnectionResetError", "ConnectionAbortedError"),
    *("ConnectionRefusedError", "BrokenPipeError", "BlockingIOError", "SSLError", "CertificateError"),
    *("SSLCertVerificationError", "SSLEOFError", "SSLWantReadError", "SSLWantWriteError", "SSLZeroReturnError"),
    *("gaierror", "herror", "socket.error", "socket.timeout"),
}


def violations(package: Path) -> list[str]:
    """Every broken rule under the directory `package`, as `module:line: what is wrong`."""
    dotted = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    sources = {name.removesuffix(".__init__"): path for name, path in sorted(dotted.items())}
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in sources.items()}
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        graph[name] = set()
        for line, target in imports(tree):
            problem, inner = judged(name, target, package.name, set(trees))
            if problem:
                found.append(f"{name}:{line}: {problem}")
            if inner:
                graph[name].add(inner)
        found += [f"{name}:{line}: {problem}" for line, problem in handlers(tree, part_of(name))]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        found.append("cycle: " + " -> ".join(exc.args[1]))
    return found


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, also inside functions; a relative import begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def judged(importer: str, target: str, package: str, names: set[str]) -> tuple[str, str]:
    """What is wrong with `importer` importing `target`, or ""; and the module of this package it leads to, or ""."""
    if target.startswith("."):
        return f"imports {target}: write the absolute name", ""
    if target != package and not target.startswith(f"{package}."):
        banned = FORBIDDEN.get(part_of(importer), set())
        hit = any(target == name or target.startswith(f"{name}.") for name in banned)
        return (f"{part_of(importer)} must not import {target}" if hit else ""), ""
    inner = target.removeprefix(package).removeprefix(".")
    while inner and inner not in names:  # `from package.module import name` is an import of the module
        inner = inner.rpartition(".")[0]
    if not inner:
        return f"imports {target}: the package root, or a module that is not there", ""
    return wrong_arrow(importer, inner), inner


def wrong_arrow(importer: str, target: str) -> str:
    source, sink = part_of(importer), part_of(target)
    if source == sink != target or importer == ROOT or (importer, target) in DOORS:
        return ""
    for part in (source, sink):
        if not any(part in layer for layer in LAYERS):
            return f"{part} has no layer; give it one in tests/test_layers.py"
    if rank(sink) < rank(source) or (source == sink and importer != target):
        return ""
    return f"{source} must not import {sink}"


def part_of(module: str) -> str:
    return module.partition(".")[0]


def rank(part: str) -> int:
    return next(level for level, layer in enumerate(LAYERS) if part in layer)


def handlers(tree: ast.Module, part: str) -> Iterator[tuple[int, str]]:
    """Line and complaint for every handler that catches what this part of the package may not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        elif isinstance(node, ast.ExceptHandler):
            yield from caught(node.lineno, node.type, part)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            for argument in node.args:
                yield from caught(node.lineno, argument, part)


def caught(line: int, expression: ast.expr | None, part: str) -> Iterator[tuple[int, str]]:
    each = expression.elts if isinstance(expression, ast.Tuple) else [expression]
    for name in (ast.unparse(one) for one in each if one is not None):
        if part != EDGE and (name in SYSTEM_ERRORS or name.rpartition(".")[2] in SYSTEM_ERRORS):
            yield line, f"catches {name} outside {EDGE}/"


def test_the_package_keeps_its_layers():
    found = violations(PACKAGE)
    assert found == [], "\n".join(found)


@pytest.fixture
def tree(tmp_path):
    """A tiny package that keeps every rule; write a file into it to break one."""
    package = tmp_path / "tiny"
    files = {
        "__init__.py": "from tiny.client import Client\n",
        "errors.py": "class Broken(Exception): pass\n",
        "wire/__init__.py": "",
        "wire/packet.py": "from tiny.errors import Broken\n",
        "wire/session.py": "from tiny.wire.packet import Broken\nimport tiny.wire.packet\n",
        "transport/tcp.py": "import socket\ntry:\n    pass\nexcept OSError:\n    pass\n",
        "client.py": "from tiny.wire.session import Broken\nfrom tiny import errors\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def test_a_tree_that_keeps_the_rules_has_no_violations(tree):
    assert violations(tree) == []


BREACHES = [
    ("errors.py", "from tiny.wire import packet", "errors must not import wire"),
    ("wire/packet.py", "import tiny.transport.tcp", "wire must not import transport"),
    ("wire/packet.py", "from gevent.event import Event", "wire must not import gevent.event.Event"),
    ("wire/packet.py", "def f():\n    import time", "wire must not import time"),
    ("wire/packet.py", "import logging.handlers", "wire must not import logging.handlers"),
    ("wire/packet.py", "from tiny.client import Client", "wire must not import client"),
    ("otp/process.py", "from gevent import socket", "otp must not import gevent.socket"),
    ("otp/process.py", "import ssl", "otp must not import ssl"),
    ("otp/process.py", "from tiny.wire.packet import Broken", "otp must not import wire"),
    ("transport/tcp.py", "from tiny.otp import process", "imports tiny.otp.process: the package root"),
    ("client.py", "import tiny", "imports tiny: the package root"),
    ("client.py", "from tiny import Client", "imports tiny.Client: the package root"),
    ("client.py", "from . import errors", "write the absolute name"),
    ("server.py", "import tiny.client", "server must not import client"),
    ("odd.py", "import tiny.errors", "odd has no layer"),
    ("client.py", "try:\n    pass\nexcept:\n    pass", "bare except"),
    ("transport/tcp.py", "try:\n    pass\nexcept:\n    pass", "bare except"),
    ("client.py", "try:\n    pass\nexcept OSError:\n    pass", "catches OSError outside transport/"),
    ("client.py", "try:\n    pass\nexcept (KeyError, ssl.SSLError):\n    pass", "catches ssl.SSLError outside"),
    ("client.py", "try:\n    pass\nexcept socket.timeout:\n    pass", "catches socket.timeout outside"),
    ("client.py", "with contextlib.suppress(OSError):\n    pass", "catches OSError outside transport/"),
]


@pytest.mark.parametrize(("name", "text", "complaint"), BREACHES)
def test_a_broken_rule_is_named_with_its_line(tree, name, text, complaint):
    path = tree / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n")
    found = violations(tree)[0]
    module = name.removesuffix(".py").replace("/", ".")
    assert found.startswith(f"{module}:")
    assert complaint in found


def test_a_cycle_inside_one_package_is_named(tree):
    (tree / "wire/packet.py").write_text("import tiny.wire.session\n")
    assert violations(tree) == ["cycle: wire.session -> wire.packet -> wire.session"]
