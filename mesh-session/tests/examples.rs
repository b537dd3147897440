//! The examples run to their end.

#[path = "../examples/tcp.rs"]
mod tcp;

#[test]
fn two_services_talk_over_tcp() {
    tcp::main().unwrap();
}
