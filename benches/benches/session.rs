//! Records and handshakes of the secure session, each beside the bare primitives that it can't do without.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use criterion::BatchSize;
use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::SamplingMode;
use criterion::Throughput;
use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Fingerprint;
use mesh_crypto::MacKey;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::aead::OpeningKey;
use mesh_crypto::aead::SealingKey;
use mesh_crypto::aead::SealingStream;
use mesh_crypto::engine::aws_lc;
use mesh_session::Agreement;
use mesh_session::Config;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::MacCover;
use mesh_session::PeerKey;
use mesh_session::PeerRefused;
use mesh_session::Responder;
use mesh_session::Resuming;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::Suite;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;

fn main() {
    let mut criterion = benches::criterion();
    let ends = Ends::new(Config::default());
    seal(&mut criterion, &ends);
    open(&mut criterion, &ends);
    exchange(&mut criterion, &ends);
    handshake(&mut criterion, &ends);
    criterion.final_summary();
}

fn seal(criterion: &mut Criterion, ends: &Ends) {
    let now = benches::now();
    let mut group = criterion.benchmark_group("session_seal");
    let suite = Suite::new(
        Agreement::X25519,
        AeadAlgorithm::Aes256Gcm,
        MacCover::HeaderAndTag,
    );
    let tagged = Ends::new(Config::default().with_suites(vec![suite]));
    for size in benches::SIZES {
        group.throughput(Throughput::Bytes(size.try_into().unwrap()));
        let (users, _orders) = ends.session();
        let (mut sealer, _answer) = users.begin(ROUTE, now).unwrap();
        let mut record = plain(size);
        group.bench_function(BenchmarkId::new("record", size), |b| {
            b.iter(|| {
                record.truncate(Sealer::HEADER_ROOM + size);
                sealer.seal(Flags::NONE, black_box(&mut record)).unwrap();
            });
        });
        let (users, _orders) = tagged.session();
        let (mut sealer, _answer) = users.begin(ROUTE, now).unwrap();
        let mut record = plain(size);
        group.bench_function(BenchmarkId::new("record_mac_of_tag", size), |b| {
            b.iter(|| {
                record.truncate(Sealer::HEADER_ROOM + size);
                sealer.seal(Flags::NONE, black_box(&mut record)).unwrap();
            });
        });
        let mut bare = Bare::new();
        let mut record = plain(size);
        group.bench_function(BenchmarkId::new("bare", size), |b| {
            b.iter(|| {
                record.truncate(Sealer::HEADER_ROOM + size);
                bare.seal(black_box(&mut record));
            });
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion, ends: &Ends) {
    let now = benches::now();
    let mut group = criterion.benchmark_group("session_open");
    for size in benches::SIZES {
        group.throughput(Throughput::Bytes(size.try_into().unwrap()));
        let (users, orders) = ends.session();
        let (mut sealer, _answer) = users.begin(ROUTE, now).unwrap();
        let mut first = plain(0);
        sealer.seal(Flags::HEAD, &mut first).unwrap();
        let (_answer, mut opener, _) = orders.accept(ROUTE, &mut first, now).unwrap();
        group.bench_function(BenchmarkId::new("record", size), |b| {
            // A batch's records are opened in the order in which they were sealed, as they must be.
            b.iter_batched(
                || {
                    let mut record = plain(size);
                    sealer.seal(Flags::NONE, &mut record).unwrap();
                    record
                },
                |mut record| {
                    opener.open(black_box(&mut record)).unwrap();
                    record
                },
                BatchSize::LargeInput,
            );
        });
        let mut bare = Bare::new();
        let mut ready = plain(size);
        let number = bare.stream.number();
        bare.seal(&mut ready);
        group.bench_function(BenchmarkId::new("bare", size), |b| {
            b.iter_batched(
                || ready.clone(),
                |mut record| {
                    bare.open((number, 0), black_box(&mut record));
                    record
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A request of one record and its answer, at both ends: what a sealed call costs beside its transport.
fn exchange(criterion: &mut Criterion, ends: &Ends) {
    let now = benches::now();
    let mut group = criterion.benchmark_group("session_exchange");
    for size in benches::SIZES {
        group.throughput(Throughput::Bytes((2 * size).try_into().unwrap()));
        let (users, orders) = ends.session();
        let (mut question, mut answer) = (plain(size), plain(size));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                refill(&mut question, size);
                refill(&mut answer, size);
                let (mut sealer, mut opener) = users.begin(ROUTE, now).unwrap();
                sealer
                    .seal(Flags::HEAD | Flags::END, &mut question)
                    .unwrap();
                let (mut answering, _, _) = orders.accept(ROUTE, &mut question, now).unwrap();
                answering
                    .seal(Flags::HEAD | Flags::END, &mut answer)
                    .unwrap();
                opener.open(black_box(&mut answer)).unwrap();
            });
        });
    }
    group.finish();
}

fn handshake(criterion: &mut Criterion, ends: &Ends) {
    let mut group = criterion.benchmark_group("session_handshake");
    group
        .sampling_mode(SamplingMode::Flat)
        .measurement_time(Duration::from_secs(2));
    group.bench_function("both_sides", |b| b.iter(|| ends.session()));
    let classic = Ends::new(Config::default().with_suites(vec![Suite::CLASSIC]));
    group.bench_function("both_sides_without_ml_kem", |b| {
        b.iter(|| classic.session());
    });
    let random = SystemRandom::new();
    let keys = [&ends.users, ends.responder.local()].map(|local| local.identity().key());
    let wrapped = keys.map(|key| key.public().encrypt_oaep(&KEY, b"bench", &random).unwrap());
    // Each side signs once and decrypts once, with its own key.
    group.bench_function("private_operations", |b| {
        b.iter(|| {
            for (key, wrapped) in keys.iter().zip(&wrapped) {
                black_box(key.sign_pss(black_box(b"transcript"), &random).unwrap());
                black_box(key.decrypt_oaep(black_box(wrapped), b"bench").unwrap());
            }
        });
    });
    let (_, init) = Initiator::start(&ends.users, &ends.peer, b"token", NOW).unwrap();
    group.sampling_mode(SamplingMode::Auto);
    let (users, orders) = ends.session();
    group.bench_function("resumption_both_sides", |b| {
        b.iter(|| ends.resumed(&users, &orders));
    });
    // What a flood of first messages costs before anything private is touched.
    group.bench_function("check_alone", |b| {
        b.iter(|| ends.responder.check(black_box(&init), NOW).unwrap());
    });
    group.finish();
}

/// Two services with RSA-4096 keys that know each other.
struct Ends {
    users: Arc<Local>,
    responder: Responder,
    peer: PeerKey,
    knows_users: Pinned,
    knows_orders: Pinned,
}

impl Ends {
    fn new(config: Config) -> Self {
        let (users, knows_users) = local("spiffe://example.org/user-service", config.clone());
        let (orders, knows_orders) = local("spiffe://example.org/order-service", config);
        let responder = Responder::new(orders).unwrap();
        let peer = PeerKey::from_offer(&users, responder.offer(), &knows_orders).unwrap();
        Self {
            users,
            responder,
            peer,
            knows_users,
            knows_orders,
        }
    }

    /// A whole handshake, as when the peer's key is known: one round trip.
    fn session(&self) -> (Arc<Session>, Arc<Session>) {
        let (initiator, init) = Initiator::start(&self.users, &self.peer, b"token", NOW).unwrap();
        let checked = self.responder.check(&init, NOW).unwrap();
        let (reply, orders) = self
            .responder
            .respond(&checked, b"token", &self.knows_users, NOW)
            .unwrap();
        let users = initiator.finish(&reply, &self.knows_orders, NOW).unwrap();
        (Arc::new(users), Arc::new(orders))
    }

    /// A session that follows another one.
    fn resumed(&self, users: &Arc<Session>, orders: &Session) -> (Session, Session) {
        let (waiting, message) = Resuming::start(&self.users, users, b"token", NOW).unwrap();
        let resumed = (orders, message.as_slice());
        let (reply, orders) = self
            .responder
            .resume(resumed, b"token", &self.knows_users, NOW)
            .unwrap();
        let users = waiting.finish(&reply, &self.knows_orders, NOW).unwrap();
        (users, orders)
    }
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

fn local(name: &str, config: Config) -> (Arc<Local>, Pinned) {
    let engine = aws_lc();
    let key = Arc::new(RsaKeyPair::generate(&*engine, RsaBits::B4096).unwrap());
    let pinned = Pinned(key.public().fingerprint());
    let identity = LocalIdentity::new(name.to_owned(), key, Vec::new());
    let random = Arc::new(SystemRandom::new());
    (
        Arc::new(Local::new(config, engine, random, identity).unwrap()),
        pinned,
    )
}

/// What a record needs at the least: AES-256-GCM over the text, HMAC-SHA256 over route, header, ciphertext and tag, in
/// a buffer of the same layout. Nothing is counted, checked or parsed.
struct Bare {
    stream: SealingStream,
    opening: OpeningKey,
    mac: MacKey,
}

impl Bare {
    fn new() -> Self {
        let engine = aws_lc();
        let aead = || engine.aead_key(AeadAlgorithm::Aes256Gcm, &KEY).unwrap();
        let sealing = Arc::new(SealingKey::counting(aead(), IV));
        Self {
            stream: sealing.next_stream().unwrap(),
            opening: OpeningKey::new(aead(), IV),
            mac: engine.mac_key(&KEY),
        }
    }

    fn seal(&mut self, record: &mut BytesMut) {
        let (_header, text) = record.split_at_mut(Sealer::HEADER_ROOM);
        let tag = self.stream.seal(&AAD, text).unwrap();
        record.extend_from_slice(&tag);
        let mac = self.mac.sign(&[&ROUTE_HASH, record]);
        record.extend_from_slice(&mac);
    }

    fn open(&self, at: (u64, u32), record: &mut BytesMut) {
        let (signed, mac) = record
            .split_last_chunk_mut::<{ MacKey::TAG_LEN }>()
            .unwrap();
        self.mac.verify(&[&ROUTE_HASH, signed], mac).unwrap();
        let (_header, sealed) = signed.split_at_mut(Sealer::HEADER_ROOM);
        let (text, tag) = sealed
            .split_last_chunk_mut::<{ AeadKey::TAG_LEN }>()
            .unwrap();
        self.opening.open(at, &AAD, text, tag).unwrap();
    }
}

/// Room for the header, `size` bytes of text, and room behind, so that sealing does not allocate.
fn plain(size: usize) -> BytesMut {
    let mut record = BytesMut::with_capacity(Sealer::HEADER_ROOM + size + Sealer::TRAILER_ROOM);
    refill(&mut record, size);
    record
}

/// Opening leaves the text alone in the buffer; this makes a record to be sealed of it again.
fn refill(record: &mut BytesMut, size: usize) {
    record.clear();
    record.resize(Sealer::HEADER_ROOM + size, 0x5a);
}

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const ROUTE: &[u8] = b"order-service";
const ROUTE_HASH: [u8; 32] = [3; 32];
const KEY: [u8; 32] = [7; 32];
const IV: [u8; 12] = [9; 12];
/// As long as a session's: a record's header and the hash of the route.
const AAD: [u8; 64] = [1; 64];
