"""A rate limit service with the official protobuf messages of Envoy, told what to answer.

    rls_server.py PORT CONTROL_PORT

Whoever connects to the control port writes one JSON object a line and reads one for each:

    {"answer": {...}}       a RateLimitResponse in protobuf's JSON, for every question from now on
    {"error": "CODE"}       a gRPC status in its place
    {"silent": true}        takes questions and answers none, until something else is said
    {"requests": true}      what was asked since the start
"""

import json
import socketserver
import sys
import threading
from concurrent import futures

import grpc
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from google.protobuf import json_format


class Service(rls_pb2_grpc.RateLimitServiceServicer):
    def __init__(self):
        self.changed = threading.Condition()
        self.requests = []
        self.said = {"answer": {"overall_code": "OK"}}

    def command(self, line):
        with self.changed:
            if "requests" in line:
                return self.requests
            self.said = line
            self.changed.notify_all()
            return {}

    def ShouldRateLimit(self, request, context):
        with self.changed:
            self.requests.append(json_format.MessageToDict(request, preserving_proto_field_name=True))
            self.changed.wait_for(lambda: "silent" not in self.said)
            said = self.said
        if "error" in said:
            context.abort(grpc.StatusCode[said["error"]], "as the test wants it")
        return json_format.ParseDict(said["answer"], rls_pb2.RateLimitResponse())


class Control(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            answer = self.server.service.command(json.loads(line))
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class ControlServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    port, control_port = sys.argv[1:]
    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(64))
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(service, server)
    if server.add_insecure_port(f"127.0.0.1:{port}") == 0:
        sys.exit(f"port {port} is taken")
    server.start()
    with ControlServer(("127.0.0.1", int(control_port)), Control) as control:
        control.service = service
        control.serve_forever()


main()
