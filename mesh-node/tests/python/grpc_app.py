"""A gRPC service behind a node, on grpcio. Messages are plain bytes, so nothing needs to be compiled.

Prints one JSON line for every call that reaches it and one when a call is over.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

lock = threading.Lock()


def say(**entry):
    with lock:
        print(json.dumps(entry), flush=True)


def seen(context, method):
    metadata = {key: value.hex() if isinstance(value, bytes) else value for key, value in context.invocation_metadata()}
    say(method=method, metadata=metadata)
    context.add_callback(lambda: say(over=method, active=context.is_active()))
    return metadata


def echo(request, context):
    seen(context, "Echo")
    return request


def size(request, context):
    """Gives as many bytes as the request asks for."""
    return b"x" * int(request)


def metadata(_, context):
    given = seen(context, "Metadata")
    context.send_initial_metadata((("x-initial", "first"), ("x-initial-bin", bytes(range(256)))))
    context.set_trailing_metadata((("x-trailing", "last"), ("x-trailing-bin", b"\x00\xff\x10")))
    return json.dumps(given).encode()


def fail(request, context):
    seen(context, "Fail")
    code, details = json.loads(request)
    context.set_trailing_metadata((("x-detail-bin", b"\x01\x02"),))
    context.abort(next(one for one in grpc.StatusCode if one.name == code), details)


def wait(request, context):
    """Waits until nobody wants the answer any more."""
    seen(context, "Wait")
    gone = threading.Event()
    context.add_callback(gone.set)
    remaining = context.time_remaining()
    say(remaining=remaining)
    started = time.monotonic()
    gone.wait(20)
    say(cancelled=not context.is_active(), after=time.monotonic() - started)
    return b""


def sum_up(requests, context):
    seen(context, "Sum")
    total = sum(int(request) for request in requests)
    return str(total).encode()


def count(request, context):
    seen(context, "Count")
    for number in range(int(request)):
        yield str(number).encode()


def chat(requests, context):
    """Answers every message when it comes, not when all have come."""
    seen(context, "Chat")
    for request in requests:
        yield b"re: " + request


def half(requests, context):
    """Fails in the middle of a stream."""
    yield next(requests)
    context.abort(grpc.StatusCode.DATA_LOSS, "half is gone")


handlers = grpc.method_handlers_generic_handler("shop.Orders", {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Size": grpc.unary_unary_rpc_method_handler(size),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Sum": grpc.stream_unary_rpc_method_handler(sum_up),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Half": grpc.stream_stream_rpc_method_handler(half),
    "Secret": grpc.unary_unary_rpc_method_handler(echo),
})
server = grpc.server(futures.ThreadPoolExecutor(128), handlers=[handlers], options=[
    ("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)])
assert server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
server.wait_for_termination()
