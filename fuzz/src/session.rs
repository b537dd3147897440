//! The messages of a handshake, of a resumption, cookies, records and their frames.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::BytesMut;
use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Prk;
use mesh_crypto::SystemRandom;
use mesh_crypto::aead::SealingKey;
use mesh_crypto::engine::rustcrypto;
use mesh_session::Config;
use mesh_session::CookieMint;
use mesh_session::Error;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerKey;
use mesh_session::Responder;
use mesh_session::Resuming;
use mesh_session::Sealer;
use mesh_session::Session;
use mesh_session::Suite;
use mesh_session::challenge;
use mesh_session::framing::FrameReader;
use mesh_session::parse_challenge;
use mesh_session::parse_with_cookie;
use mesh_session::resumed_session_of;
use mesh_session::session_id_of;
use mesh_session::with_cookie;

use crate::keys::ALICE;
use crate::keys::BOB;
use crate::keys::ENGINE;
use crate::keys::NOW;
use crate::keys::RANDOM;
use crate::keys::Trusting;
use crate::keys::node;

/// Two nodes, and a session in the suite with ML-KEM and one in that without.
struct World {
    alice: Arc<Local>,
    responder: Responder,
    peer: PeerKey,
    /// Where a first message has the hash of the offer, and what stands there.
    offer_hash: [u8; 32],
    sessions: [(Arc<Session>, Arc<Session>); 2],
    now: Instant,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    fn new() -> Self {
        let alice = node("alice", &ALICE, Config::default());
        let responder = Responder::new(node("bob", &BOB, Config::default())).unwrap();
        let peer = PeerKey::from_offer(&alice, responder.offer(), &Trusting).unwrap();
        let classic = node(
            "alice",
            &ALICE,
            Config::default().with_suites(vec![Suite::CLASSIC]),
        );
        let sessions = [&alice, &classic].map(|alice| {
            let (initiator, init) = Initiator::start(alice, &peer, b"token", NOW).unwrap();
            let checked = responder.check(&init, NOW).unwrap();
            let (reply, bob) = responder
                .respond(&checked, b"token", &Trusting, NOW)
                .unwrap();
            let alice = initiator.finish(&reply, &Trusting, NOW).unwrap();
            (Arc::new(alice), Arc::new(bob))
        });
        Self {
            offer_hash: ENGINE.sha256(&[responder.offer()]),
            alice,
            responder,
            peer,
            sessions,
            now: instant(),
        }
    }

    fn respond(&self, init: &[u8]) -> Result<Session, Error> {
        let checked = self.responder.check(init, NOW)?;
        let answered = self.responder.respond(&checked, b"token", &Trusting, NOW);
        answered.map(|(_, session)| session)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do to count from"
)]
fn instant() -> Instant {
    Instant::now()
}

/// A key offer, on both engines.
pub fn key_offer(data: &[u8]) {
    static NODES: LazyLock<[Arc<Local>; 2]> = LazyLock::new(|| {
        let aws_lc = node("alice", &ALICE, Config::default());
        let identity = LocalIdentity::new("alice".to_owned(), Arc::clone(&ALICE), Vec::new());
        let random = Arc::new(SystemRandom::new());
        let other = Local::new(Config::default(), rustcrypto(), random, identity).unwrap();
        [aws_lc, Arc::new(other)]
    });
    let read = NODES
        .each_ref()
        .map(|node| PeerKey::from_offer(node, data, &Trusting));
    match read {
        [Ok(one), Ok(other)] => {
            assert_eq!(one.name(), other.name());
            assert_eq!(one.fingerprint(), other.fingerprint());
        }
        [Err(one), Err(other)] => assert_eq!(one.to_string(), other.to_string()),
        [one, other] => panic!("one engine reads it: {one:?}, {other:?}"),
    }
}

/// A first message, as it is and then with this offer's hash and the time of now: never answered, since nobody can guess
/// the MAC of its box.
pub fn first_message(data: &[u8]) {
    let world = &*WORLD;
    assert!(world.respond(data).is_err());
    let mut data = data.to_vec();
    if let Some(to) = data.get_mut(4..36) {
        to.copy_from_slice(&world.offer_hash);
    }
    if let Some(to) = data.get_mut(36..44) {
        to.copy_from_slice(&NOW.as_millis().to_be_bytes());
    }
    assert!(world.respond(&data).is_err());
}

/// The sealed part of a first message: whoever knows the offer can put anything there. With an odd first byte it is signed
/// by Alice, and is answered if it is well formed and names her key.
pub fn first_message_inner(data: &[u8]) {
    let Some((how, inner)) = data.split_first() else {
        return;
    };
    let is_signed = how & 1 == 1;
    let init = Forger::get().first_message(inner, is_signed);
    if let Ok(session) = WORLD.respond(&init) {
        assert!(is_signed, "an answer without a signature");
        assert_eq!(session.peer_fingerprint(), ALICE.public().fingerprint());
        assert!((1..=2_048).contains(&session.peer_name().len()));
    }
}

/// Makes first messages as `PROTOCOL.md` says, with any inner part.
struct Forger {
    secret: [u8; 32],
    ciphertext: Vec<u8>,
    share: [u8; 32],
    agreed: Vec<u8>,
    /// No random comes twice, or the replay cache would be all that is tested.
    random: AtomicU64,
}

impl Forger {
    fn get() -> &'static Self {
        static FORGER: LazyLock<Forger> = LazyLock::new(Forger::new);
        &FORGER
    }

    fn new() -> Self {
        let secret = [7; 32];
        let label = b"mesh-session v1 secret to responder";
        let ciphertext = BOB.public().encrypt_oaep(&secret, label, &RANDOM).unwrap();
        let key = ENGINE.x25519_key(&RANDOM).unwrap();
        // Version, kind, count, two suites.
        let share_o = WORLD.responder.offer()[7..39].try_into().unwrap();
        Self {
            secret,
            ciphertext,
            share: *key.share(),
            agreed: key.agree(&share_o).unwrap().expose().to_vec(),
            random: AtomicU64::new(0),
        }
    }

    fn first_message(&self, inner: &[u8], is_signed: bool) -> Vec<u8> {
        let mut out = vec![1, 1, 0, 1];
        out.extend_from_slice(&WORLD.offer_hash);
        out.extend_from_slice(&NOW.as_millis().to_be_bytes());
        let count = self.random.fetch_add(1, Ordering::Relaxed);
        out.extend_from_slice(&ENGINE.sha256(&[&count.to_be_bytes()]));
        out.extend_from_slice(&self.share);
        put(&mut out, &self.ciphertext);
        let transcript = ENGINE.sha256(&[b"mesh-session v1 init\0", &out]);
        let mut inner = inner.to_vec();
        if is_signed {
            let message = [
                b"mesh-session v1 initiator signature\0".as_slice(),
                &transcript,
                &ENGINE.sha256(&[&inner]),
            ]
            .concat();
            let signature = ALICE.sign_pss(&message, &RANDOM).unwrap();
            put(&mut inner, &signature);
        }
        let prk = Prk::extract(&**ENGINE, &transcript, &[&self.secret, &self.agreed]);
        let mut keys = [0; 76];
        prk.expand(&[b"mesh-session v1 init box\0"], &mut keys)
            .unwrap();
        let key = ENGINE
            .aead_key(AeadAlgorithm::Aes256Gcm, &keys[..32])
            .unwrap();
        let sealing = Arc::new(SealingKey::counting(key, keys[32..44].try_into().unwrap()));
        let mut stream = sealing.next_stream().unwrap();
        let tag = stream.seal(&transcript, &mut inner).unwrap();
        inner.extend_from_slice(&tag);
        let mac = ENGINE.mac_key(&keys[44..]).sign(&[&transcript, &inner]);
        inner.extend_from_slice(&mac);
        put(&mut out, &inner);
        out
    }
}

/// Appends a field with its length, or as much of it as fits.
fn put(out: &mut Vec<u8>, field: &[u8]) {
    let field = &field[..field.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&u16::try_from(field.len()).unwrap().to_be_bytes());
    out.extend_from_slice(field);
}

/// A reply to a first message of the suite that it says: never taken.
pub fn reply(data: &[u8]) {
    static CLASSIC: LazyLock<Arc<Local>> = LazyLock::new(|| {
        node(
            "alice",
            &ALICE,
            Config::default().with_suites(vec![Suite::CLASSIC]),
        )
    });
    let world = &*WORLD;
    let alice = match data.get(2) {
        Some(0) => &*CLASSIC,
        _ => &world.alice,
    };
    let (initiator, _) = Initiator::start(alice, &world.peer, b"", NOW).unwrap();
    assert!(initiator.finish(data, &Trusting, NOW).is_err());
}

/// A resumption of either session, as it is and then with the session's id and the time of now.
pub fn resumption(data: &[u8]) {
    let world = &*WORLD;
    if let Some(id) = resumed_session_of(data) {
        assert_eq!(data.get(2..18), Some(id.as_bytes().as_slice()));
    }
    for (_, bob) in &world.sessions {
        let mut data = data.to_vec();
        for _ in 0..2 {
            let resumed = world.responder.resume((bob, &data), b"", &Trusting, NOW);
            assert!(resumed.is_err());
            if let Some(to) = data.get_mut(2..18) {
                to.copy_from_slice(bob.id().as_bytes());
            }
            if let Some(to) = data.get_mut(18..26) {
                to.copy_from_slice(&NOW.as_millis().to_be_bytes());
            }
        }
    }
}

/// A reply to a resumption of either session.
pub fn resumption_reply(data: &[u8]) {
    for (alice, _) in &WORLD.sessions {
        let (resuming, _) = Resuming::start(&WORLD.alice, alice, b"", NOW).unwrap();
        assert!(resuming.finish(data, &Trusting, NOW).is_err());
    }
}

/// Challenges, messages with a cookie, and cookies themselves.
pub fn cookie(data: &[u8]) {
    static MINT: LazyLock<CookieMint> = LazyLock::new(|| {
        CookieMint::new(Arc::clone(&ENGINE), Arc::new(SystemRandom::new()), NOW).unwrap()
    });
    if let Ok(cookie) = parse_challenge(data) {
        assert_eq!(challenge(&cookie), data);
    }
    if let Ok((cookie, message)) = parse_with_cookie(data) {
        assert_eq!(with_cookie(&cookie, message), data);
        assert!(MINT.check(&cookie, b"address", message, NOW).is_err());
        let good = MINT.mint(b"address", message, NOW);
        MINT.check(&good, b"address", message, NOW).unwrap();
    }
    assert!(MINT.check(data, b"address", b"message", NOW).is_err());
}

/// Any bytes as a record, with the session's id where the first byte is odd; then a good record with bytes changed, which
/// opens if and only if nothing was changed.
///
/// Each three bytes are one change: where (two bytes, from the start or from the end), and with what.
pub fn record(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let world = &*WORLD;
    let (alice, bob) = &world.sessions[usize::from(how >> 1 & 1)];
    if let Ok(id) = session_id_of(data) {
        assert_eq!(data.get(4..20), Some(id.as_bytes().as_slice()));
    }
    let mut raw = BytesMut::from(data);
    if how & 1 == 1
        && let Some(to) = raw.get_mut(4..20)
    {
        to.copy_from_slice(bob.id().as_bytes());
    }
    let (mut sealer, mut opener) = alice.begin(b"route", world.now).unwrap();
    assert!(opener.open(&mut raw.clone()).is_err());
    assert!(bob.accept(b"route", &mut raw, world.now).is_err());

    let flags = [Flags::NONE, Flags::HEAD, Flags::TRAILERS, Flags::END][usize::from(how >> 2 & 3)];
    let good = sealed(&mut sealer, flags);
    let (changes, rest) = data.as_chunks::<3>();
    let mut record = good.clone();
    for [high, low, with] in changes.iter().take(8) {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % record.len().max(1);
        record
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|byte| *byte ^= with);
    }
    match rest {
        [cut] => record.truncate(usize::from(*cut) % 128),
        [more, _] => record.extend_from_slice(&[*more]),
        _ => {}
    }
    let is_same = record == good;
    match bob.accept(b"route", &mut record, world.now) {
        Ok(_) => assert!(is_same, "a changed record was accepted"),
        Err(_) => assert!(!is_same, "a good record was refused"),
    }
}

fn sealed(sealer: &mut Sealer, flags: Flags) -> BytesMut {
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(b"some text");
    sealer.seal(flags, &mut record).unwrap();
    record
}

/// Frames out of a stream cut anywhere, against a reader that has all of it at once.
///
/// The first byte says into how long pieces the rest is cut, the second how long a frame may be.
pub fn framing(data: &[u8]) {
    let [cut, max, stream @ ..] = data else {
        return;
    };
    let max = usize::from(*max) * 8;
    let mut reader = FrameReader::new(max);
    let mut frames = Vec::new();
    let mut refused = false;
    'all: for piece in stream.chunks(usize::from(*cut).max(1)) {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => {
                    refused = true;
                    break 'all;
                }
            }
        }
    }
    let mut expected = Vec::new();
    let mut left = stream;
    let too_large = loop {
        let Some((len, rest)) = left.split_first_chunk() else {
            break false;
        };
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap();
        if len > max {
            break true;
        }
        let Some((frame, rest)) = rest.split_at_checked(len) else {
            break false;
        };
        expected.push(frame.to_vec());
        left = rest;
    };
    assert_eq!((frames, refused), (expected, too_large));
    assert!(refused || reader.finish().is_ok() == left.is_empty());
}
