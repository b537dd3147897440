"""Prints the fields of the protobuf messages that `src/xds/fields.rs` names, from the official descriptors.

With a message name per argument: one line each, `message tag=name tag=name ...`. With `--rust`: the table itself.
"""

import sys

from envoy.config.cluster.v3 import cluster_pb2  # noqa: F401
from envoy.config.endpoint.v3 import endpoint_pb2  # noqa: F401
from envoy.service.discovery.v3 import discovery_pb2  # noqa: F401
from google.protobuf import descriptor_pool


def fields(name):
    message = descriptor_pool.Default().FindMessageTypeByName(name)
    return [(field.number, field.name) for field in sorted(message.fields, key=lambda field: field.number)]


if sys.argv[1] == "--rust":
    for pair in sys.argv[2:]:
        constant, name = pair.split("=")
        print(f"pub(super) static {constant}: Message = Message {{")
        print(f'    name: "{name}",')
        print("    fields: &[")
        for number, field in fields(name):
            print(f'        ({number}, "{field}"),')
        print("    ],\n};\n")
else:
    for name in sys.argv[1:]:
        print(name, *(f"{number}={field}" for number, field in fields(name)))
