"""A gRPC server with the health service, by gRPC's own library; the message is written by hand (health.proto).

    health.py [PORT [STATUS]]

Prints its port, which by default is one that is free. `orders` is SERVING, or what STATUS says as a number; `broken` is
NOT_SERVING, anything else is not known.
"""

import concurrent.futures
import sys

import grpc

PORT = sys.argv[1] if sys.argv[1:] else "0"
STATUSES = {b"": 1, b"orders": int(sys.argv[2]) if sys.argv[2:] else 1, b"broken": 2}


def check(request, context):
    # HealthCheckRequest: field 1, the service's name.
    name = request[2:] if request else b""
    assert not request or (request[0] == 10 and request[1] == len(name)), request
    if name not in STATUSES:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return bytes([8, STATUSES[name]])


handler = grpc.method_handlers_generic_handler(
    "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((handler,))
port = server.add_insecure_port(f"127.0.0.1:{PORT}")
server.start()
print(port, flush=True)
sys.stdin.read()
server.wait_for_termination()
