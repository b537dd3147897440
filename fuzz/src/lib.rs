//! What bytes from outside may do to the parsers of the mesh: nothing but be refused.
//!
//! Each function here is a fuzz target: it takes any bytes and panics only where something is wrong.
//! `fuzz_targets/` gives each to libFuzzer (`cargo xtask fuzz`), and `tests/replay.rs` gives each its corpus, without
//! libFuzzer.
//!
//! What a fuzzer can't guess is done for it: a message for another offer or another session never gets past the first
//! check, so targets write the right hash, id and time into what they are given, and those behind a MAC or a signature
//! hold the keys and make it. An engine is fuzzed against the other wherever both parse the same bytes.

mod cache;
mod crypto;
mod discovery;
mod envelopes;
mod keys;
mod policy;
mod rate_limits;
mod routes;
mod session;
mod sources;
mod store;
mod tokens;
mod transport;

// What the files of mesh-discovery below call it by.
use mesh_discovery as address;
use mesh_discovery as endpoint;
use mesh_discovery as host;
use mesh_discovery::metadata;

/// What follows the resources of a control plane, without what connects to it. It is private in mesh-discovery, so its
/// files are included here as they are.
#[allow(
    dead_code,
    reason = "it is another crate's, which uses more of it than this does"
)]
#[path = "../../mesh-discovery/src/xds"]
mod xds {
    mod assignment;
    mod cluster;
    mod drops;
    mod fields;
    mod follower;
    mod ignored;
    mod message;
    mod refusal;
    mod topic;
    mod wire;

    use mesh_discovery::xds::Locality;
    use mesh_discovery::xds::Node;

    #[path = "../../../fuzz/src/control_plane.rs"]
    pub(crate) mod control_plane;
}

pub use cache::cache;
pub use crypto::fingerprint;
pub use crypto::private_key;
pub use crypto::public_key_pem;
pub use crypto::spki;
pub use discovery::consul_health;
pub use discovery::etcd_value;
pub use discovery::xds_assignment;
pub use envelopes::envelope;
pub use envelopes::envelope_header;
pub use policy::condition;
pub use policy::policy;
pub use rate_limits::rate_limit;
pub use routes::route;
pub use session::cookie;
pub use session::first_message;
pub use session::first_message_inner;
pub use session::framing;
pub use session::key_offer;
pub use session::record;
pub use session::reply;
pub use session::resumption;
pub use session::resumption_reply;
pub use sources::dns_answer;
pub use sources::service_file;
pub use store::encrypted_key;
pub use store::key_store_names;
pub use tokens::key_set;
pub use transport::grpc_frame;
pub use transport::sealed_head;
pub use xds::control_plane::xds_stream;
