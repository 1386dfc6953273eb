"""How many bytes our packets have, read off two sessions: the floor sends as many."""

from __future__ import annotations

from loads import Plan, value_of

from erps_gevent.wire.packet import Stamp
from erps_gevent.wire.session import ClientSession, ServerSession


def wire_sizes(plan: Plan) -> tuple[int, int]:
    """The sizes of the request of this plan and of what answers it."""
    stamp = Stamp((0, 0, 0), "benchmark")
    client, server = ClientSession(stamp), ServerSession(stamp)
    server.receive(client.hello())
    client.receive(server.welcome(25.0, 1000))
    value = value_of(plan)
    ref, request = client.call(value, 5.0)
    answer = server.push(value) if plan["load"] == "pushes" else server.reply(ref, value)
    return len(request), len(answer)
