"""An aggregated discovery service with the official protobuf messages of Envoy, both variants, told what to serve.

    ads.py PORT CONTROL_PORT

Whoever connects to the control port writes one JSON object a line and reads one for each:

    {"set": TYPE, "name": NAME, "resource": {...}}   TYPE is cluster or assignment, the resource in protobuf's JSON
    {"set": TYPE, "name": NAME, "raw": "00ff"}       bytes that need not be a resource
    {"remove": TYPE, "name": NAME}
    {"batch": [...]}                                 several of these, told to clients at once
    {"requests": true}                               what clients have asked for since the start
    {"close": true}                                  ends all streams
    {"send": "00ff"}                                 sends bytes on all streams that need not be a response
    {"mode": "eager"}                                answers every request, refusals too, as a broken server does
    {"mode": "silent"}                               takes requests and answers none
    {"mode": "late"}                                 as usual, but sends no headers before the first response
    {"mode": "watch"}                                sends nothing but in answer to a request, of which each brings one
                                                     response, and answers a refusal with what was refused: go-control-plane
    {"mode": "normal"}

Versions are hashes of what is served, so a server that is started again with the same resources has the same versions.
"""

import hashlib
import json
import queue
import socketserver
import sys
import threading
from concurrent import futures

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

TYPES = {
    "cluster": ("type.googleapis.com/envoy.config.cluster.v3.Cluster", cluster_pb2.Cluster),
    "assignment": (
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        endpoint_pb2.ClusterLoadAssignment,
    ),
}
CLUSTER = TYPES["cluster"][0]
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
END = object()


def digest(data):
    return hashlib.sha256(data).hexdigest()[:12]


class World:
    """What is served, and to whom."""

    def __init__(self):
        self.lock = threading.Lock()
        self.resources = {url: {} for url, _ in TYPES.values()}
        self.streams = set()
        self.requests = []
        self.mode = "normal"

    def command(self, line):
        with self.lock:
            if "requests" in line:
                return self.requests
            if "mode" in line:
                self.mode = line["mode"]
            elif "close" in line:
                self.tell(END)
            elif "send" in line:
                self.tell(bytes.fromhex(line["send"]))
            else:
                for change in line.get("batch", [line]):
                    self.change(change)
                self.tell(None)
            return {}

    def change(self, change):
        url, kind = TYPES[change.get("set") or change["remove"]]
        if "remove" in change:
            self.resources[url].pop(change["name"], None)
        elif "raw" in change:
            self.resources[url][change["name"]] = bytes.fromhex(change["raw"])
        else:
            message = json_format.ParseDict(change["resource"], kind())
            self.resources[url][change["name"]] = message.SerializeToString(deterministic=True)

    def tell(self, item):
        for stream in self.streams:
            stream.put(item)

    def note(self, request, variant, stream):
        noted = json_format.MessageToDict(request, preserving_proto_field_name=True)
        noted["variant"] = variant
        noted["stream"] = stream
        self.requests.append(noted)


class Whole:
    """State of the world, for one type on one stream."""

    variant = "whole"

    def __init__(self, url):
        self.url = url
        self.names = None
        self.sent = None
        self.count = 0
        # A request has come that no response has followed.
        self.is_open = False

    def request(self, request, world):
        names = set(request.resource_names)
        is_stale = request.response_nonce and request.response_nonce != str(self.count)
        if is_stale:
            return None
        is_first, is_new = self.names is None, self.names != names
        added = names - (self.names or set())
        self.names = names
        self.is_open = True
        if world.mode == "watch":
            is_known = request.version_info == self.version(world)
            return self.response(world) if added or not is_known else None
        if is_first and request.version_info == self.version(world):
            self.sent = request.version_info
            return None
        if is_new and (added or self.url == CLUSTER) or world.mode == "eager":
            return self.response(world)
        return None

    def changed(self, world):
        if self.names is None or self.sent == self.version(world):
            return None
        if world.mode == "watch" and not self.is_open:
            return None
        return self.response(world)

    def version(self, world):
        parts = sorted((name, digest(data)) for name, data in self.chosen(world).items())
        return digest(json.dumps(parts).encode())

    def chosen(self, world):
        return {name: data for name, data in world.resources[self.url].items() if name in (self.names or ())}

    def response(self, world):
        self.count += 1
        self.is_open = False
        self.sent = self.version(world)
        response = discovery_pb2.DiscoveryResponse(
            version_info=self.sent, type_url=self.url, nonce=str(self.count)
        )
        response.control_plane.identifier = "ads.py"
        for data in self.chosen(world).values():
            response.resources.add(type_url=self.url, value=data)
        return response.SerializeToString()


class Delta:
    """Incremental, for one type on one stream."""

    variant = "delta"

    def __init__(self, url):
        self.url = url
        self.names = set()
        # Of each name the version that the client has; None where it has been told that there is none.
        self.known = {}
        self.count = 0
        self.is_open = False

    def request(self, request, world):
        self.is_open = True
        self.known.update(request.initial_resource_versions)
        for name in request.resource_names_subscribe:
            self.names.add(name)
        for name in request.resource_names_unsubscribe:
            self.names.discard(name)
            self.known.pop(name, None)
        if world.mode == "eager" or world.mode == "watch" and request.HasField("error_detail"):
            self.known.clear()
        return self.changed(world)

    def changed(self, world):
        if world.mode == "watch" and not self.is_open:
            return None
        have = {name: data for name, data in world.resources[self.url].items() if name in self.names}
        gone = [name for name in self.names if name not in have and self.known.get(name, "") is not None]
        new = {name: data for name, data in have.items() if self.known.get(name) != digest(data)}
        if not gone and not new:
            return None
        self.count += 1
        self.is_open = False
        response = discovery_pb2.DeltaDiscoveryResponse(
            system_version_info=str(self.count),
            type_url=self.url,
            nonce=f"d{self.count}",
            removed_resources=gone,
        )
        for name in gone:
            self.known[name] = None
        for name, data in new.items():
            self.known[name] = digest(data)
            resource = response.resources.add(name=name, version=digest(data))
            resource.resource.type_url = self.url
            resource.resource.value = data
        return response.SerializeToString()


class Service:
    def __init__(self, world):
        self.world = world
        self.count = 0

    def serve(self, kind, requests, context):
        world = self.world
        inbox = queue.Queue()
        topics = {}
        with world.lock:
            self.count += 1
            number = self.count
            world.streams.add(inbox)
            mode = world.mode
        context.add_callback(lambda: inbox.put(END))
        if mode != "late":
            context.send_initial_metadata(())

        def read():
            try:
                for request in requests:
                    inbox.put(request)
            except grpc.RpcError:
                pass
            inbox.put(END)

        threading.Thread(target=read, daemon=True).start()
        try:
            while True:
                item = inbox.get()
                if item is END:
                    return
                if isinstance(item, bytes):
                    yield item
                    continue
                with world.lock:
                    responses = self.answer(kind, topics, item, number)
                yield from responses
        finally:
            with world.lock:
                world.streams.discard(inbox)

    def answer(self, kind, topics, item, number):
        world = self.world
        if item is not None:
            world.note(item, kind.variant, number)
            topic = topics.setdefault(item.type_url, kind(item.type_url))
            responses = [topic.request(item, world)]
        else:
            # Clusters before what they lead to.
            responses = [topics[url].changed(world) for url in sorted(topics, key=lambda url: url != CLUSTER)]
        if world.mode == "silent":
            return []
        return [response for response in responses if response is not None]

    def handlers(self):
        def method(kind, request):
            return grpc.stream_stream_rpc_method_handler(
                lambda requests, context: self.serve(kind, requests, context),
                request_deserializer=request.FromString,
                response_serializer=lambda data: data,
            )

        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamAggregatedResources": method(Whole, discovery_pb2.DiscoveryRequest),
                "DeltaAggregatedResources": method(Delta, discovery_pb2.DeltaDiscoveryRequest),
            },
        )


class Control(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            answer = self.server.world.command(json.loads(line))
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class ControlServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    port, control_port = sys.argv[1:]
    world = World()
    server = grpc.server(futures.ThreadPoolExecutor(64))
    server.add_generic_rpc_handlers((Service(world).handlers(),))
    if server.add_insecure_port(f"127.0.0.1:{port}") == 0:
        sys.exit(f"port {port} is taken")
    server.start()
    with ControlServer(("127.0.0.1", int(control_port)), Control) as control:
        control.world = world
        control.serve_forever()


main()
