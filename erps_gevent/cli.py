"""The `erps` command.

    erps demo                                     a story of healing over two-way TLS, on this machine
    erps certs DIR --server NAME --client NAME    certificates for development

Exit status: 0 done, 1 failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

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
    return parser


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


if __name__ == "__main__":
    sys.exit(main())
