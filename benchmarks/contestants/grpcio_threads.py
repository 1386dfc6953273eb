"""grpcio with threads: a server with the pool of its documentation's examples, and one channel for all callers.

Bytes as they are, without protobuf: what it costs to make a message is not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc

from contestants import side

VERSIONS = {"grpcio": grpc.__version__}
METHOD, UNLIMITED = "/bench.Echo/Call", [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Echo(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)


def serve(plan: side.Plan, ready: Callable[[int], None]) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=10), handlers=(Echo(),), options=UNLIMITED)
    ready(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


class Line:
    def __init__(self, plan: side.Plan) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{plan['port']}", options=UNLIMITED)
        self.call = self.channel.unary_unary(METHOD)

    def close(self) -> None:
        self.channel.close()


connect = Line
gather = side.in_threads

if __name__ == "__main__":
    side.main(__name__)
