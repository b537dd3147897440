//! What a sealed call costs in memory once it runs: nothing.
//!
//! The allocator counts what Rust code asks for. What the C library below asks for is not seen here; `README.md` says
//! how to count that.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::alloc::System;
use std::collections::VecDeque;
use std::sync::Arc;

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
use mesh_session::Session;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_session::framing::FrameReader;
use mesh_session::framing::FrameWriter;
use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::Region;
use stats_alloc::StatsAlloc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn sealed_calls_allocate_nothing_once_their_buffers_have_grown() {
    let (users, orders) = sessions();
    let mut ends = Ends::new();
    for size in [64, 1024, 16_384] {
        let request = vec![b'm'; size];
        for _ in 0..20 {
            ends.turn(&users, &orders, &request);
        }
        let region = Region::new(ALLOCATOR);
        for _ in 0..100 {
            ends.turn(&users, &orders, &request);
        }
        let change = region.change();
        assert_eq!(
            (change.allocations, change.reallocations),
            (0, 0),
            "in 6,400 calls of {size} bytes"
        );
    }
}

/// The buffers of both ends, as over one connection.
struct Ends {
    requests: (FrameWriter, FrameReader),
    answers: (FrameWriter, FrameReader),
    calls: VecDeque<mesh_session::Opener>,
}

impl Ends {
    fn new() -> Self {
        let way = || (FrameWriter::new(), FrameReader::new(1 << 20));
        Self {
            requests: way(),
            answers: way(),
            calls: VecDeque::with_capacity(IN_FLIGHT),
        }
    }

    /// A batch of calls, each answered with its own bytes.
    fn turn(&mut self, users: &Arc<Session>, orders: &Arc<Session>, request: &[u8]) {
        let now = tokio::time::Instant::now().into_std();
        let whole = Flags::HEAD | Flags::END;
        for _ in 0..IN_FLIGHT {
            let (mut sealer, opener) = users.begin(ROUTE, now).unwrap();
            self.requests.0.seal(&mut sealer, whole, request).unwrap();
            self.calls.push_back(opener);
        }
        carry(&mut self.requests, |mut record| {
            let (mut sealer, opener, _) = orders.accept(ROUTE, &mut record, now).unwrap();
            opener.finish().unwrap();
            self.answers.0.seal(&mut sealer, whole, &record).unwrap();
        });
        carry(&mut self.answers, |mut record| {
            let mut opener = self.calls.pop_front().unwrap();
            opener.open(&mut record).unwrap();
            opener.finish().unwrap();
            assert_eq!(record.len(), request.len());
        });
        assert!(self.calls.is_empty());
    }
}

/// What a socket does, a read at a time.
fn carry((writer, reader): &mut (FrameWriter, FrameReader), mut take: impl FnMut(bytes::BytesMut)) {
    for chunk in writer.buffer().chunks(16_000) {
        reader.buffer().extend_from_slice(chunk);
        while let Some(record) = reader.next_frame().unwrap() {
            take(record);
        }
    }
    writer.buffer().clear();
}

struct Pinned(Fingerprint);

impl VerifyPeer for Pinned {
    fn verify_key(&self, claim: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        if claim.fingerprint == self.0 {
            Ok(())
        } else {
            Err(PeerRefused::new("not the pinned key"))
        }
    }

    fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }
}

fn local(name: &str) -> (Arc<Local>, Pinned) {
    let key = Arc::new(RsaKeyPair::generate(&*aws_lc(), RsaBits::B2048).unwrap());
    let pinned = Pinned(key.public().fingerprint());
    let identity = LocalIdentity::new(name.to_owned(), key, Vec::new());
    let random = Arc::new(SystemRandom::new());
    let local = Local::new(Config::default(), aws_lc(), random, identity).unwrap();
    (Arc::new(local), pinned)
}

fn sessions() -> (Arc<Session>, Arc<Session>) {
    let (users, knows_users) = local("users");
    let (orders, knows_orders) = local("orders");
    let responder = Responder::new(orders).unwrap();
    let peer = PeerKey::from_offer(&users, responder.offer(), &knows_orders).unwrap();
    let (initiator, init) = Initiator::start(&users, &peer, b"token", NOW).unwrap();
    let checked = responder.check(&init, NOW).unwrap();
    let answered = responder.respond(&checked, b"token", &knows_users, NOW);
    let (reply, at_orders) = answered.unwrap();
    let at_users = initiator.finish(&reply, &knows_orders, NOW).unwrap();
    (Arc::new(at_users), Arc::new(at_orders))
}

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const ROUTE: &[u8] = b"order-service";
const IN_FLIGHT: usize = 64;
