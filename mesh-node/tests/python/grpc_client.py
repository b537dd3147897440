"""A gRPC client on grpcio: `grpc_client.py PORT CASE`. Prints what it got as JSON."""

import json
import queue
import sys
import threading
import time

import grpc

channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[1], options=[
    ("grpc.default_authority", "order-service"), ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)])


def unary(name):
    return channel.unary_unary("/shop.Orders/" + name)


def failed(call):
    """How a call fails: code, details, trailers, and after how long."""
    started = time.monotonic()
    try:
        call()
    except grpc.RpcError as error:
        trailers = {key: value.hex() if isinstance(value, bytes) else value for key, value in error.trailing_metadata() or ()}
        return {"code": error.code().name, "details": error.details(), "trailers": trailers,
                "seconds": time.monotonic() - started}
    return {"code": "OK"}


def streams():
    """All four kinds of call."""
    chat = channel.stream_stream("/shop.Orders/Chat")
    sent = queue.Queue()
    answers = chat(iter(sent.get, None), timeout=30)
    said = 0
    for number in range(200):
        # The next one is said only once the last one is answered.
        sent.put(b"%d" % number)
        said += next(answers) == b"re: %d" % number
    sent.put(None)
    rest = list(answers)
    return {
        "unary": unary("Echo")(b"hello", timeout=30).decode(),
        "empty": len(unary("Echo")(b"", timeout=30)),
        "sum": channel.stream_unary("/shop.Orders/Sum")((b"%d" % n for n in range(1000)), timeout=30).decode(),
        "count": [int(one) for one in channel.unary_stream("/shop.Orders/Count")(b"1000", timeout=30)] == list(range(1000)),
        "chat": said, "rest": len(rest), "chatCode": answers.code().name,
    }


def metadata():
    answer, call = unary("Metadata").with_call(b"", timeout=30, metadata=(
        ("x-plain", "value"), ("x-bytes-bin", bytes(range(256))), ("x-twice", "1"), ("x-twice", "2")))
    shown = lambda pairs: {key: value.hex() if isinstance(value, bytes) else value for key, value in pairs}
    return {"seen": json.loads(answer), "initial": shown(call.initial_metadata()), "trailing": shown(call.trailing_metadata())}


def codes():
    names = [code.name for code in grpc.StatusCode if code.name != "OK"]
    got = {}
    for name in names:
        got[name] = failed(lambda: unary("Fail")(json.dumps([name, "why: größer 100 %\n" + name]).encode(), timeout=30))
        # Too many failures in a row would open the circuit.
        unary("Echo")(b"", timeout=30)
    return got


def half():
    answers = channel.stream_stream("/shop.Orders/Half")(iter([b"one", b"two"]), timeout=30)
    got = []
    end = failed(lambda: got.extend(answers))
    return {"got": len(got), **end}


def deadline():
    return failed(lambda: unary("Wait")(b"", timeout=1))


def cancel():
    call = unary("Wait").future(b"", timeout=30)
    # Gone once the server has it: it says so in its log, which the test waits for.
    sys.stdin.readline()
    call.cancel()
    return {"cancelled": call.cancelled(), "code": call.code().name}


def large():
    block = bytes(range(256)) * (4 << 12)
    return {"same": unary("Echo")(block, timeout=60) == block, "down": len(unary("Size")(b"4194304", timeout=60))}


def many():
    calls = [unary("Echo").future(b"%d" % number, timeout=60) for number in range(100)]
    same = sum(call.result() == b"%d" % number for number, call in enumerate(calls))
    chats = [channel.stream_stream("/shop.Orders/Chat")(iter([b"a", b"b"]), timeout=60) for _ in range(50)]
    return {"same": same, "chats": sum(list(chat) == [b"re: a", b"re: b"] for chat in chats)}


def denied():
    return failed(lambda: unary("Secret")(b"", timeout=30))


def echo():
    return failed(lambda: unary("Echo")(b"x", timeout=30))


def unknown():
    return failed(lambda: unary("None")(b"x", timeout=30))


def no_route():
    other = grpc.insecure_channel("127.0.0.1:" + sys.argv[1], options=[("grpc.default_authority", "nobody")])
    return failed(lambda: other.unary_unary("/shop.Orders/Echo")(b"x", timeout=30))


print(json.dumps(globals()[sys.argv[2]]()), flush=True)
