"""A SPIFFE Workload API server over the messages of PyPI's `spiffe`, which knows nothing of the mesh.

Usage: workload_agent.py SOCKET FILE

FILE says what programs are given, and is read again whenever it changes: {"svids": [{"id", "chain", "key", "bundle",
"hint"}], "federated": {"spiffe://td": PEM file}}, with PEM files relative to FILE's folder; "svids": [] refuses.
Prints a line for each stream that begins.
"""

import os
import sys
import threading
import time
from concurrent import futures

import grpc
import json
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from spiffe._proto import workload_pb2 as pb
from spiffe._proto import workload_pb2_grpc as rpc

socket, path = sys.argv[1], sys.argv[2]
folder = os.path.dirname(path)


def der_of(name):
    with open(os.path.join(folder, name), "rb") as file:
        found = x509.load_pem_x509_certificates(file.read())
    return b"".join(one.public_bytes(serialization.Encoding.DER) for one in found)


def key_of(name):
    with open(os.path.join(folder, name), "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def response():
    with open(path) as file:
        given = json.load(file)
    svids = [
        pb.X509SVID(
            spiffe_id=svid["id"],
            x509_svid=der_of(svid["chain"]),
            x509_svid_key=key_of(svid["key"]),
            bundle=der_of(svid["bundle"]),
            hint=svid.get("hint", ""),
        )
        for svid in given["svids"]
    ]
    federated = {td: der_of(name) for td, name in given.get("federated", {}).items()}
    return pb.X509SVIDResponse(svids=svids, federated_bundles=federated)


class Agent(rpc.SpiffeWorkloadAPIServicer):
    def FetchX509SVID(self, request, context):
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing")
        print("stream", flush=True)
        last = None
        while context.is_active():
            now = os.stat(path).st_mtime_ns
            if now != last:
                last = now
                update = response()
                if not update.svids:
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
                yield update
            time.sleep(0.02)


server = grpc.server(futures.ThreadPoolExecutor(8))
rpc.add_SpiffeWorkloadAPIServicer_to_server(Agent(), server)
server.add_insecure_port("unix:" + socket)
server.start()
print("ready", flush=True)
threading.Event().wait()
