"""grpcio with asyncio at both ends, one channel for all callers. Its loads are those of loads.py, as coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

import grpc
from loads import WARM_UP, Figures, Meter, quantiles_of, value_of

from contestants import side
from contestants.grpcio_threads import METHOD, UNLIMITED

VERSIONS = {"grpcio": grpc.__version__}


class Echo(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        async def echo(request: bytes, context: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


def serve(plan: side.Plan, ready: Callable[[int], None]) -> None:
    async def serving() -> None:
        server = grpc.aio.server(options=UNLIMITED)
        server.add_generic_rpc_handlers((Echo(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready(port)
        await server.wait_for_termination()

    asyncio.run(serving())


def together(_contestant: Any, plan: side.Plan) -> Figures:
    return asyncio.run(racing(plan, plan["callers"]))


def sequential(_contestant: Any, plan: side.Plan) -> Figures:
    return asyncio.run(racing(plan, 1))


async def racing(plan: side.Plan, callers: int) -> Figures:
    value = value_of(plan)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{plan['port']}", options=UNLIMITED) as channel:
        call = channel.unary_unary(METHOD)
        assert await call(value) == value
        await all_until(call, value, callers, perf_counter() + plan["seconds"] * WARM_UP)
        with Meter(plan) as meter:
            times = await all_until(call, value, callers, perf_counter() + plan["seconds"])
    return meter.figures(len(times), **(quantiles_of(times) if callers == 1 else {}))


async def all_until(call: Callable[[bytes], Any], value: bytes, callers: int, end: float) -> list[float]:
    times: list[float] = []

    async def caller() -> None:
        before = perf_counter()
        while True:
            await call(value)
            now = perf_counter()
            times.append(now - before)
            if now >= end:
                return
            before = now

    await asyncio.gather(*(caller() for _ in range(callers)))
    return times


LOADS = {"sequential": sequential, "together": together}

if __name__ == "__main__":
    side.main(__name__)
