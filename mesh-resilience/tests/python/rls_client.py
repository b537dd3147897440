"""Asks a rate limit service with the official protobuf messages of Envoy.

    rls_client.py PORT QUESTIONS

QUESTIONS is a JSON list of RateLimitRequest, or of {"health": NAME}. Prints a JSON list: a RateLimitResponse for each, or
{"error": CODE, "details": TEXT}.
"""

import json
import sys

import grpc
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from google.protobuf import json_format


def varint_field(data):
    """The one field of a HealthCheckResponse, whose messages this environment does not have."""
    return data[1] if data else 0


def ask(channel, question):
    try:
        if "health" in question:
            name = question["health"].encode()
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            answer = check(b"\x0a" + bytes([len(name)]) + name if name else b"", timeout=10)
            return {"status": varint_field(answer)}
        request = json_format.ParseDict(question, rls_pb2.RateLimitRequest())
        answer = rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit(request, timeout=10)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)
    except grpc.RpcError as error:
        return {"error": error.code().name, "details": error.details()}


def main():
    port, questions = sys.argv[1:]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        print(json.dumps([ask(channel, question) for question in json.loads(questions)]))


main()
