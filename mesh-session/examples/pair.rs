//! Two nodes in one process: an offer, a handshake of one round trip, and an exchange.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::BytesMut;
use mesh_crypto::Fingerprint;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_session::Config;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerKey;
use mesh_session::PeerRefused;
use mesh_session::Responder;
use mesh_session::Sealer;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;

/// Trusts one key for one name, and takes any token.
struct Pinned(&'static str, Fingerprint);

impl VerifyPeer for Pinned {
    fn verify_key(&self, claim: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        if claim.name == self.0 && claim.fingerprint == self.1 {
            Ok(())
        } else {
            Err(PeerRefused::new("the key is not the pinned one"))
        }
    }

    fn verify_token(
        &self,
        name: &str,
        token: &[u8],
        _: &TokenContext<'_>,
    ) -> Result<(), PeerRefused> {
        println!("{name} shows a token of {} bytes", token.len());
        Ok(())
    }
}

fn node(name: &str) -> Result<Arc<Local>, Box<dyn Error>> {
    let key = Arc::new(RsaKeyPair::generate(&*aws_lc(), RsaBits::B4096)?);
    println!("{name} is {}", key.public().fingerprint());
    let identity = LocalIdentity::new(name.to_owned(), key, Vec::new());
    Ok(Arc::new(Local::new(
        Config::default(),
        aws_lc(),
        Arc::new(SystemRandom::new()),
        identity,
    )?))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell of this program reads the clock here"
)]
fn instant() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell of this program reads the clock here"
)]
fn clock() -> Result<UnixTime, Box<dyn Error>> {
    Ok(UnixTime::from_secs(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    ))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (users, orders) = (node("user-service")?, node("order-service")?);
    let knows_users = Pinned(
        "user-service",
        users.identity().key().public().fingerprint(),
    );
    let knows_orders = Pinned(
        "order-service",
        orders.identity().key().public().fingerprint(),
    );
    let now = clock()?;

    let responder = Responder::new(orders)?;
    let peer = PeerKey::from_offer(&users, responder.offer(), &knows_orders)?;
    let (initiator, init) = Initiator::start(&users, &peer, b"a token", now)?;
    let checked = responder.check(&init, now)?;
    let (reply, at_orders) = responder.respond(&checked, b"another token", &knows_users, now)?;
    let at_users = Arc::new(initiator.finish(&reply, &knows_orders, now)?);
    println!(
        "offer {} bytes, first message {}, reply {}",
        responder.offer().len(),
        init.len(),
        reply.len()
    );

    let route = b"POST /v1/orders";
    let (mut sealer, mut opener) = at_users.begin(route, instant())?;
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(b"three apples");
    sealer.seal(Flags::HEAD | Flags::END, &mut record)?;
    println!(
        "sealed: {} bytes in session {}",
        record.len(),
        at_users.id()
    );
    let (mut answer, _, _) = Arc::new(at_orders).accept(route, &mut record, instant())?;
    println!("opened: {}", String::from_utf8_lossy(&record));
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(b"sold");
    answer.seal(Flags::END, &mut record)?;
    opener.open(&mut record)?;
    opener.finish()?;
    println!("answer: {}", String::from_utf8_lossy(&record));
    Ok(())
}
