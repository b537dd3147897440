"""PyPI's `spiffe` as a client of the Workload API that a node serves.

Usage: workload_client.py SOCKET [watch]

Prints one JSON line for what it gets, or for why it gets nothing; with `watch` one for each update.
"""

import json
import sys
import threading

from cryptography.hazmat.primitives import serialization
from spiffe import WorkloadApiClient


def say(entry):
    print(json.dumps(entry), flush=True)


def described(context):
    svid = context.default_svid
    spki = [
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for key in (svid.private_key.public_key(), svid.leaf.public_key())
    ]
    bundles = context.x509_bundle_set.bundles
    return {
        "id": str(svid.spiffe_id),
        "serial": format(svid.leaf.serial_number, "x"),
        "key_fits": spki[0] == spki[1],
        "bundles": {str(b.trust_domain.name): len(b.x509_authorities) for b in bundles},
    }


client = WorkloadApiClient("unix://" + sys.argv[1])
try:
    if "watch" in sys.argv:
        client.stream_x509_contexts(
            on_success=lambda context: say(described(context)),
            on_error=lambda error: say({"error": str(error)}),
        )
        threading.Event().wait()
    context = client.fetch_x509_context(timeout=10)
    bundles = client.fetch_x509_bundles(timeout=10)
    own = context.default_svid.spiffe_id.trust_domain
    entry = described(context)
    entry["own_roots"] = len(bundles.get_bundle_for_trust_domain(own).x509_authorities)
    say(entry)
    try:
        client.fetch_jwt_svid(audience={"a"}, timeout=10)
    except Exception as error:
        say({"jwt": str(error)})
except Exception as error:
    say({"error": f"{type(error).__name__}: {error}"})
