//! Listeners, mutual TLS with hot certificate rotation, pooled connections, HTTP forwarding and drain
