#!/bin/bash
# As mesh-session.sh, over the service between nodes: gRPC, one HTTP/2 connection, mutual TLS. Set-up includes TLS.
TRANSPORT=grpc
. "$(dirname "${BASH_SOURCE[0]}")/mesh-session.sh"
