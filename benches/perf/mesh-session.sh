#!/bin/bash
# The end-to-end session over plain TCP, one connection between two processes: RSA-4096 on both sides, mutual, then
# AES-256-GCM and HMAC-SHA256 over all of it, an exchange a call. Needs MESH_NODE_BIN, a release build.
. "$PERF_HOME/lib/peer.sh"
TRANSPORT=${TRANSPORT:-tcp}
peer_info() {
  [ -n "${MESH_NODE_BIN:-}" ] && [ -x "$MESH_NODE_BIN" ] || { echo "skip=MESH_NODE_BIN is not set"; return; }
  echo "desc=mesh-node's session over $TRANSPORT"
  echo "version=$("$MESH_NODE_BIN" --version 2>/dev/null | awk '{print $2}')"
  echo "paths=session"
}
peer_session() {
  local x=(); [ -n "${LOAD_CPU:-}" ] && x=(--client-cpu "$LOAD_CPU" --server-cpu "$PROXY_CPU")
  "$MESH_NODE_BIN" bench session --json --transport "$TRANSPORT" --secs "${SECS:-1}" "${x[@]}"
}
peer_main "$@"
