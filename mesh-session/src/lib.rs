//! Authenticated handshake and secure channel between two services, as pure state machines
