"""The `erps` command.

    erps demo                                     a story of healing over two-way TLS, on this machine
    erps certs DIR --server NAME --client NAME    certificates for development
    erps serve MODULE:NAME --bind HOST:PORT ...   one process that serves an application until a signal ends it

Exit status: 0 done, 1 failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from erps_gevent import certs
from erps_gevent.errors import ErpsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (None: the process's own) and return its exit status."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except ErpsError as exc:
        print(f"erps: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="erps", description="GenServer calls over two-way TLS for synchronous Python")
    parser.add_argument("--version", action="version", version=f"erps_gevent {_version()}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    demo = verbs.add_parser("demo", help="kill a daemon and watch its clients heal, on this machine")
    demo.set_defaults(run=_demo)

    make = verbs.add_parser(
        "certs",
        help="make certificates for development",
        description="Make an authority and certificates for servers and clients, as PEM files in DIR.",
        epilog="example: erps certs certs --server localhost,127.0.0.1 --client alice bob",
    )
    make.add_argument("directory", metavar="DIR", help="where the files go; made if it is not there")
    several = "several names in one certificate: NAME,NAME"
    make.add_argument(
        "--server", metavar="NAME", nargs="+", action="extend", default=[], help=f"host name or address; {several}"
    )
    make.add_argument(
        "--client", metavar="NAME", nargs="+", action="extend", default=[], help=f"name of a client; {several}"
    )
    make.add_argument("--force", action="store_true", help="replace files that are already there")
    make.set_defaults(run=_certs, usage_error=make.error)
    _add_serve(verbs)
    return parser


def _add_serve(verbs: Any) -> None:
    serve = verbs.add_parser(
        "serve",
        help="serve an application in this process, until a signal ends it",
        description="Serve a Server class, or a factory f(listener, transport) -> Daemon, in this one process.",
        epilog="TERM has the clients move and then ends; INT and QUIT end at once; USR1 writes all stacks to stderr. "
        "example: erps serve myapp:Counter --bind 0.0.0.0:4747 --ca ca.pem --cert server.pem --key server.key",
    )
    serve.add_argument("app", metavar="MODULE:NAME", help="imported from the current directory, or from PYTHONPATH")
    where = "host:port, the path of a unix socket, or fd://N; may be given several times"
    serve.add_argument("--bind", metavar="ADDRESS", action="append", required=True, help=where)
    serve.add_argument("--ca", metavar="FILE", help="PEM of the authority of the clients' certificates")
    serve.add_argument("--cert", metavar="FILE", help="PEM of the certificate that is presented")
    serve.add_argument("--key", metavar="FILE", help="PEM of its key, unless that is in the same file")
    serve.add_argument("--tcp", action="store_true", help="plain TCP: nothing is encrypted, nobody authenticated")
    seconds = {"metavar": "SECONDS", "type": _seconds}
    serve.add_argument("--drain-time", default=30.0, help="that clients have to move after TERM (30)", **seconds)
    serve.add_argument(
        "--delay", default=0.0, help="after TERM in which it goes on accepting, for balancers that lag (0)", **seconds
    )
    serve.add_argument("--max-connection-age", help="after which a client is asked to move", **seconds)
    serve.add_argument("--max-connections", metavar="COUNT", type=int, help="in all, over the addresses")
    serve.add_argument("--patch", action="store_true", help="gevent.monkey.patch_all() before the application is there")
    levels = ["debug", "info", "warning", "error"]
    serve.add_argument("--log-level", choices=levels, default="info", help="of what goes to stderr (info)")
    serve.set_defaults(run=_serve)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _version() -> str:
    try:
        return version("erps_gevent")
    except PackageNotFoundError:  # run from a checkout
        return "(not installed)"


def _demo(args: argparse.Namespace) -> int:
    # Imported here: the demo brings servers and clients with it, and `erps certs` needs none of them.
    from erps_gevent.demo import run

    return run(args)


def _certs(args: argparse.Namespace) -> int:
    if not args.server and not args.client:
        args.usage_error("name at least one certificate: --server NAME or --client NAME")
    issued = certs.make(args.directory, args.server, args.client, force=args.force)
    print(f"{issued.ca}   the authority, for both ends")
    for role, people in (("server", issued.servers), ("client", issued.clients)):
        for one in people:
            print(f"{one.cert}, {one.key}   {role} {', '.join(one.names)}")
    print()
    for role, people in (("daemon", issued.servers), ("client", issued.clients)):
        for one in people[:1]:
            paths = f"ca={str(issued.ca)!r}, cert={str(one.cert)!r}, key={str(one.key)!r}"
            print(f"In the {role}:  transport=erps.Tls({paths})")
    print("\nFor development only: the authority's key is not kept, so no certificate can be added later.")
    return 0


def _serve(args: argparse.Namespace) -> int:
    if args.patch:
        # It is the program's choice, and comes before anything of the application is imported.
        from gevent import monkey

        monkey.patch_all()
    from erps_gevent.integrations import serve

    level = args.log_level.upper()
    logging.basicConfig(stream=sys.stderr, level=level, format=serve.LOG_FORMAT)
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    names = [field.name for field in dataclasses.fields(serve.Settings)]
    return serve.run(serve.Settings(**{name: getattr(args, name) for name in names}))


if __name__ == "__main__":
    sys.exit(main())
