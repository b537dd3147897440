//! Authenticated handshake and secure channel between two services, as pure state machines.
//!
//! Two nodes that know each other's RSA keys, by pin or by certificate, agree on a session in one round trip and then
//! exchange records that nobody between them can read, change, repeat, reorder or cut off unnoticed.
//!
//! ```rust
//! # use std::sync::Arc;
//! # use std::time::Instant;
//! # use bytes::BytesMut;
//! # use mesh_crypto::{RsaBits, RsaKeyPair, SystemRandom, engine::aws_lc};
//! # use mesh_session::*;
//! # struct Pinned(mesh_crypto::Fingerprint);
//! # impl VerifyPeer for Pinned {
//! #     fn verify_key(&self, claim: &KeyClaim<'_>) -> Result<(), PeerRefused> {
//! #         if claim.fingerprint == self.0 { Ok(()) } else { Err(PeerRefused::new("not the pinned key")) }
//! #     }
//! #     fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> { Ok(()) }
//! # }
//! # fn node(name: &str) -> Result<(Arc<Local>, Pinned), Box<dyn std::error::Error>> {
//! #     let key = Arc::new(RsaKeyPair::generate(&*aws_lc(), RsaBits::B2048)?);
//! #     let pin = Pinned(key.public().fingerprint());
//! #     let identity = LocalIdentity::new(name.to_owned(), key, Vec::new());
//! #     Ok((Arc::new(Local::new(Config::default(), aws_lc(), Arc::new(SystemRandom::new()), identity)?), pin))
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let ((users, users_pin), (orders, orders_pin)) = (node("users")?, node("orders")?);
//! # let now = UnixTime::from_secs(1_800_000_000);
//! let responder = Responder::new(orders)?;
//! let peer = PeerKey::from_offer(&users, responder.offer(), &orders_pin)?;
//! let (initiator, init) = Initiator::start(&users, &peer, b"token", now)?;
//! let checked = responder.check(&init, now)?;
//! let (reply, at_orders) = responder.respond(&checked, b"token", &users_pin, now)?;
//! let (at_users, at_orders) = (Arc::new(initiator.finish(&reply, &orders_pin, now)?), Arc::new(at_orders));
//!
//! let (mut sealer, _answer) = at_users.begin(b"GET /orders", Instant::now())?;
//! let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
//! record.extend_from_slice(b"which?");
//! sealer.seal(Flags::HEAD | Flags::END, &mut record)?;
//! let (_answer, question, _) = at_orders.accept(b"GET /orders", &mut record, Instant::now())?;
//! question.finish()?;
//! assert_eq!(record.as_ref(), b"which?");
//! # Ok(())
//! # }
//! ```
//!
//! `PROTOCOL.md` beside this gives every byte, the key schedule and why it holds. `examples/pair.rs` is the above as a
//! program.
//!
//! # Where to start
//!
//! | you want | see |
//! |---|---|
//! | the whole of it in one process, without input or output | `examples/pair.rs` |
//! | calls over one TCP connection, many in flight | `examples/tcp.rs`, [`framing`] |
//! | the same over gRPC, with mutual TLS and limits | `mesh-transport`, feature `session` |
//! | one message for one recipient, in a file or a queue | `mesh_crypto::envelope` |
//! | another implementation | `PROTOCOL.md`, `vectors/`, and the one in Python under `tests/python` |
//!
//! The life of a session, and who calls what:
//!
//! ```text
//!   initiator                                  responder
//!   PeerKey::from_offer  ◀──── offer ─────────  Responders::current().offer()
//!   Initiator::start     ──── first message ─▶  Responders::check, HandshakeLimiter, Responder::respond
//!   Initiator::finish    ◀──── reply ─────────
//!   Session::begin       ──── records ───────▶  session_id_of, SessionTable::get, Session::accept
//!   Sealer, Opener       ◀──── records ──────▶  Sealer, Opener              (keys change by themselves)
//!   Resuming::start      ──── resumption ────▶  resumed_session_of, Responder::resume
//! ```
//!
//! # What this crate does not do
//!
//! - It moves no bytes and reads no clock: the caller carries messages and records, and says what time it is.
//! - It trusts no key by itself: [`VerifyPeer`] decides, with pins or certificates that only the caller understands.
//! - Its next keys come from the last ones by one-way steps ([`EpochLimits`]); fresh secrets come in with a resumption
//!   ([`Resuming`]) or a handshake, which the caller decides on.
//! - It starts no thread: [`Responder::respond`] and both steps of [`Initiator`] use private keys, and the caller runs
//!   them on a bounded pool. [`HandshakeLimiter`] says whose turn it is.
//!
//! # Modules
//!
//! All public items are at the root, except those of [`framing`].
//!
//! | item | what it is |
//! |---|---|
//! | [`Local`], [`LocalIdentity`], [`Config`], [`EpochLimits`] | who this side is and what it accepts |
//! | [`Suite`], [`Agreement`], [`MacCover`] | how keys are agreed and records protected |
//! | [`VerifyPeer`], [`KeyClaim`], [`TokenContext`], [`PeerRefused`] | the caller's judgement of a peer |
//! | [`Responder`], [`Responders`], [`Checked`], [`PeerKey`], [`Initiator`] | the handshake |
//! | [`Resuming`], [`Responder::resume`], [`resumed_session_of`] | the next session without a private key |
//! | [`HandshakeLimiter`], [`CookieMint`] | bounds on what strangers and peers may cost |
//! | [`Session`], [`Sealer`], [`Opener`], [`Flags`] | exchanges and their records |
//! | [`SessionTable`], [`session_id_of`] | finding the session of a record |
//! | [`framing`] | messages and records over any stream of bytes |
//! | [`Error`] | what went wrong; [`Error::Open`] for all that a key was involved in |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `aws-lc` (default) | `mesh_crypto::engine::aws_lc`, which needs a C compiler |
//! | `rustcrypto` | `mesh_crypto::engine::rustcrypto`, pure Rust |

mod config;
mod cookie;
mod error;
pub mod framing;
mod identity;
mod init;
mod initiator;
mod limit;
mod offer;
mod record;
mod replay;
mod responder;
mod responders;
mod resume;
mod schedule;
mod session;
mod shares;
mod suite;
mod table;
mod time;
mod wire;

pub use config::Config;
pub use config::EpochLimits;
pub use cookie::CookieMint;
pub use cookie::challenge;
pub use cookie::parse_challenge;
pub use cookie::parse_with_cookie;
pub use cookie::with_cookie;
pub use error::Error;
pub use identity::KeyClaim;
pub use identity::Local;
pub use identity::LocalIdentity;
pub use identity::PeerRefused;
pub use identity::Role;
pub use identity::TokenContext;
pub use identity::VerifyPeer;
pub use initiator::Initiator;
pub use limit::HandshakeLimiter;
pub use limit::Limited;
pub use limit::LimiterConfig;
pub use limit::LimiterStats;
pub use limit::Place;
pub use offer::PeerKey;
pub use record::Flags;
pub use record::SessionId;
pub use record::session_id_of;
pub use responder::Checked;
pub use responder::Responder;
pub use responders::Responders;
pub use resume::Resuming;
pub use resume::resumed_session_of;
pub use session::Counters;
pub use session::Opened;
pub use session::Opener;
pub use session::Sealer;
pub use session::Session;
pub use suite::Agreement;
pub use suite::MacCover;
pub use suite::Suite;
pub use table::SessionSummary;
pub use table::SessionTable;
pub use table::TableConfig;
pub use table::TableStats;
pub use time::UnixTime;
