#!/bin/bash
# mesh-node, two hops: sidecar A → mTLS with SPIFFE id checked both ways → sidecar B, one worker thread each.
# Peer file of the side-by-side harness; benches/README.md says how to run it. Needs MESH_NODE_BIN, a release build.
#
# h1, grpc: mTLS alone, like for like with a peer's plain path: no token, no rate limit, no audit, no access log.
# Still on, because the product has no path without them: policy (one rule), metrics, circuit breaker, retries,
# deadline, bulkhead. h1-hybrid, grpc-hybrid: the same with the end-to-end session (RSA-4096, AES-256) inside the mTLS.
. "$PERF_HOME/lib/peer.sh"
MN=${MESH_NODE_BIN:-}
peer_info() {
  [ -n "$MN" ] && [ -x "$MN" ] || { echo "skip=MESH_NODE_BIN is not set"; return; }
  echo "desc=mesh-node ↔ mesh-node, mTLS + SPIFFE id, policy, metrics, breaker, retry"
  echo "version=$("$MN" --version 2>/dev/null | awk '{print $2}')"
  echo "paths=h1 grpc h1-hybrid grpc-hybrid"
}
# What both sides say. $1: side, $2: certificate name, $3: security.encryption.
common() { cat <<C
identity:
  trust_domain: mesh.local
  source: files
  cert_file: $CERTS/$2.pem
  key_file: $CERTS/$2.key
  ca_file: $CERTS/ca.pem
security:
  encryption: $3
  rsa_key_size: 4096
  keys_dir: $KEYS/$1
resilience:
  bulkhead: { max_concurrent: 1024, max_waiting: 1024 }
audit: { enabled: false }
access_log: { enabled: false }
log: { level: warn }
runtime: { worker_threads: 1 }
C
}
peer_start() {
  local encryption=mtls
  case $1 in *-hybrid) encryption=hybrid ;; esac
  # RSA-4096 keys take seconds to make: kept over rounds, not made in each.
  KEYS=${PERF_DIR:-$WORK}/mesh-node-keys
  mkdir -p "$KEYS" && chmod 700 "$KEYS" || return 1
  { common b server $encryption; cat <<C
service:
  id: backend
  listen: 127.0.0.1:$B_PORT
  app: $BACKEND
  spiffe_id: spiffe://mesh.local/ns/default/sa/server
outbound: { listen: 127.0.0.1:0 }
policy:
  default: deny
  rules:
    - { name: client-calls-backend, from: ["spiffe://mesh.local/ns/default/sa/client"], to: { service: backend }, action: allow }
admin: { listen: 127.0.0.1:$ADMIN_B }
C
  } > "$WORK/b.yaml"
  { common a client $encryption; cat <<C
service:
  id: client
  listen: 127.0.0.1:0
  spiffe_id: spiffe://mesh.local/ns/default/sa/client
outbound:
  listen: 127.0.0.1:0
  upstreams: [ { service: backend, bind: "127.0.0.1:$A_PORT" } ]
discovery:
  sources:
    - mode: static
      services:
        - { id: backend, host: 127.0.0.1, port: $B_PORT, spiffe_id: "spiffe://mesh.local/ns/default/sa/server" }
admin: { listen: 127.0.0.1:$ADMIN_A }
C
  } > "$WORK/a.yaml"
  local side
  for side in b a; do spawn $side "$MN" run -c "$WORK/$side.yaml"; done
  wait_port 127.0.0.1:$B_PORT 60 && wait_port 127.0.0.1:$A_PORT 60 || return 1
  case $1 in grpc*) echo proto=grpc; echo b_alpn=h2 ;; *) echo proto=h1; echo b_alpn=http/1.1 ;; esac
  # B takes sealed calls only, and the load generator seals nothing: no handshake test.
  case $1 in *-hybrid) echo b_tls= ;; esac
}
peer_main "$@"
