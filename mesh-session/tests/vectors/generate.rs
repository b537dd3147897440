//! Makes the vectors with this crate, and offers it what must be refused.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::engine::rustcrypto;
use mesh_session::Agreement;
use mesh_session::Config;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
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
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use serde_json::json;

use crate::File;
use crate::derive;
use crate::hex::encode;
use crate::hex::field;
use crate::scripted::Scripted;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const INITIATOR: &str = "spiffe://example.org/user-service";
const RESPONDER: &str = "spiffe://example.org/order-service";
const ROUTE: &[u8] = b"order-service";

/// Says yes to every key and token.
struct Trusting;

impl VerifyPeer for Trusting {
    fn verify_key(&self, _: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }

    fn verify_token(&self, _: &str, _: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        Ok(())
    }
}

/// A fresh key as PKCS#8.
pub(crate) fn new_key(bits: RsaBits) -> Vec<u8> {
    let key = RsaKeyPair::generate(&*aws_lc(), bits).unwrap();
    let pem = key.to_pkcs8_pem().unwrap();
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.expose()).unwrap();
    der.secret_pkcs8_der().to_vec()
}

/// Both nodes, as they are before the handshake.
struct Nodes {
    initiator: Arc<Local>,
    initiator_random: Arc<Scripted>,
    responder: Responder,
    responder_random: Arc<Scripted>,
}

impl Nodes {
    fn new(file: &File, [initiator, responder]: &[Vec<u8>; 2]) -> Self {
        let local = |name: &str, key: &[u8], random: &Arc<Scripted>| {
            let engine = rustcrypto();
            let key = engine.rsa_from_pkcs8(&Secret::from_slice(key)).unwrap();
            let identity = LocalIdentity::new(name.to_owned(), Arc::new(key), b"shown".to_vec());
            let config = Config::default().with_suites(vec![file.suite]);
            let random = Arc::clone(random);
            Arc::new(Local::new(config, engine, random, identity).unwrap())
        };
        let initiator_random = Arc::new(Scripted::new("initiator"));
        let responder_random = Arc::new(Scripted::new("responder"));
        Self {
            initiator: local(INITIATOR, initiator, &initiator_random),
            responder: Responder::new(local(RESPONDER, responder, &responder_random)).unwrap(),
            initiator_random,
            responder_random,
        }
    }

    fn of(file: &File, read: &Value) -> Self {
        Self::new(
            file,
            &["initiator_pkcs8", "responder_pkcs8"].map(|key| field(read, key)),
        )
    }

    fn peer(&self) -> PeerKey {
        PeerKey::from_offer(&self.initiator, self.responder.offer(), &Trusting).unwrap()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do to count from"
)]
fn instant() -> Instant {
    Instant::now()
}

struct Run {
    nodes: Nodes,
    initiator: Arc<Session>,
    responder: Arc<Session>,
}

/// The whole file.
pub(crate) fn vectors(file: &File, keys: &[Vec<u8>; 2]) -> Value {
    let is_hybrid = file.suite.agreement() == Agreement::X25519MlKem768;
    let nodes = Nodes::new(file, keys);
    let offered = nodes.responder_random.given();
    let peer = nodes.peer();
    let (waiting, first) = Initiator::start(&nodes.initiator, &peer, b"token i", NOW).unwrap();
    let started = nodes.initiator_random.given();
    let checked = nodes.responder.check(&first, NOW).unwrap();
    let answered = nodes
        .responder
        .respond(&checked, b"token r", &Trusting, NOW);
    let (reply, responder) = answered.unwrap();
    let answering = nodes.responder_random.given();
    let initiator = waiting.finish(&reply, &Trusting, NOW).unwrap();
    drop(nodes.initiator_random.given());
    // What each side draws, and in which order: the fixed randomness of an implementation is its own affair, so the
    // files say what became of it. A responder draws what stands in for a secret that does not decrypt first.
    let mut out = json!({
        "about": file.about,
        "suite": encode(&first[2..4]),
        "now": NOW.as_millis(),
        "initiator_pkcs8": encode(&keys[0]),
        "responder_pkcs8": encode(&keys[1]),
        "x25519_o": encode(&offered[0]),
        "x25519_i": encode(&started[1]),
        "x25519_r": encode(&answering[2]),
        "offer": encode(nodes.responder.offer()),
        "first_message": encode(&first),
        "reply": encode(&reply),
    });
    if is_hybrid {
        out["ml_kem_o"] = encode(&offered[1]);
        out["ml_kem_i"] = encode(&started[2]);
    }
    let found = derive::handshake(&*rustcrypto(), file.suite, &out);
    merge(&mut out, found);
    let mut run = Run {
        nodes,
        initiator: Arc::new(initiator),
        responder: Arc::new(responder),
    };
    out["records"] = records(&run);
    assert_eq!(field(&out, "id"), run.initiator.id().as_bytes());
    let (resumed, message, reply) = resume(&mut run, &field(&out, "resumption"), file.suite);
    out["resumed"] = resumed;
    let refused = refused(&out, (&message, &reply));
    out["refused"] = refused;
    out
}

fn merge(out: &mut Value, found: Value) {
    if let (Value::Object(out), Value::Object(found)) = (out, found) {
        out.extend(found);
    }
}

/// Records both ways, with a change of keys in between by either side.
fn records(run: &Run) -> Value {
    let mut out = Vec::new();
    let mut note = |from: &str, flags: Flags, plaintext: &[u8], record: &BytesMut| {
        out.push(json!({
            "from": from,
            "epoch": record[1],
            "flags": flags.bits(),
            "exchange": u64::from_be_bytes(record[20..28].try_into().unwrap()),
            "index": u32::from_be_bytes(record[28..32].try_into().unwrap()),
            "route": encode(ROUTE),
            "plaintext": encode(plaintext),
            "record": encode(record),
        }));
    };
    let now = instant();
    for text in [b"one call".as_slice(), b"", &[0x5a; 100]] {
        let (mut asking, mut answered) = run.initiator.begin(ROUTE, now).unwrap();
        let mut record = seal(&mut asking, Flags::HEAD, text);
        note("initiator", Flags::HEAD, text, &record);
        let (mut answering, mut asked, _) = run.responder.accept(ROUTE, &mut record, now).unwrap();
        run.initiator.advance().unwrap();
        let mut record = seal(&mut asking, Flags::END, b"in the next epoch");
        note("initiator", Flags::END, b"in the next epoch", &record);
        asked.open(&mut record).unwrap();
        let mut record = seal(&mut answering, Flags::HEAD, b"an answer");
        note("responder", Flags::HEAD, b"an answer", &record);
        answered.open(&mut record).unwrap();
        run.responder.advance().unwrap();
        let flags = Flags::END | Flags::TRAILERS;
        let mut record = seal(&mut answering, flags, b"and one more");
        note("responder", flags, b"and one more", &record);
        answered.open(&mut record).unwrap();
    }
    Value::Array(out)
}

fn seal(sealer: &mut Sealer, flags: Flags, text: &[u8]) -> BytesMut {
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(text);
    sealer.seal(flags, &mut record).unwrap();
    record
}

fn resume(run: &mut Run, old: &[u8], suite: Suite) -> (Value, Vec<u8>, Vec<u8>) {
    let at = UnixTime::from_millis(NOW.as_millis() + 5_000);
    let nodes = &run.nodes;
    let (waiting, message) = Resuming::start(&nodes.initiator, &run.initiator, b"", at).unwrap();
    let started = nodes.initiator_random.given();
    let answered = nodes
        .responder
        .resume((&run.responder, &message), b"token r", &Trusting, at);
    let (reply, responder) = answered.unwrap();
    let answering = nodes.responder_random.given();
    let initiator = waiting.finish(&reply, &Trusting, at).unwrap();
    let mut out = json!({
        "now": at.as_millis(),
        "x25519_i": encode(&started[0]),
        "x25519_r": encode(&answering[0]),
        "message": encode(&message),
        "reply": encode(&reply),
    });
    if suite.agreement() == Agreement::X25519MlKem768 {
        out["ml_kem_i"] = encode(&started[1]);
    }
    let found = derive::resumption(&*rustcrypto(), suite, (&out, old));
    merge(&mut out, found);
    run.initiator = Arc::new(initiator);
    run.responder = Arc::new(responder);
    assert_eq!(field(&out, "id"), run.initiator.id().as_bytes());
    out["records"] = records(run);
    (out, message, reply)
}

/// Messages and records with one thing wrong in each.
fn refused(file: &Value, (resumption, resumption_reply): (&[u8], &[u8])) -> Value {
    let mut out = Vec::new();
    let messages = [
        ("offer", field(file, "offer")),
        ("first_message", field(file, "first_message")),
        ("reply", field(file, "reply")),
        ("resumption", resumption.to_vec()),
        ("resumption_reply", resumption_reply.to_vec()),
    ];
    for (what, good) in &messages {
        let mut push = |why: &str, bytes: &[u8]| {
            out.push(json!({ "why": why, "what": what, "bytes": encode(bytes) }));
        };
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        push("another version", &with(0, 2));
        push("another kind", &with(1, 9));
        push("the last byte is missing", &good[..good.len() - 1]);
        push("a byte too many", &[good.as_slice(), &[0]].concat());
        push(
            "the last byte is another",
            &with(good.len() - 1, !good[good.len() - 1]),
        );
        let middle = good.len() / 2;
        push(
            "a byte in the middle is another",
            &with(middle, !good[middle]),
        );
        // To a responder, nothing is the wish for an offer.
        if !matches!(*what, "first_message" | "resumption") {
            push("nothing", &[]);
        }
    }
    for (what, at) in [("first_message", NOW), ("resumption", NOW)] {
        let bytes = &messages.iter().find(|(name, _)| *name == what).unwrap().1;
        out.push(json!({
            "why": "two minutes late", "what": what, "bytes": encode(bytes),
            "now": at.as_millis() + 120_000,
        }));
        out.push(json!({
            "why": "a replay", "what": what, "bytes": encode(bytes), "again": true,
        }));
    }
    out.extend(refused_records(&file["records"][0]));
    Value::Array(out)
}

fn refused_records(good: &Value) -> Vec<Value> {
    let mut out = Vec::new();
    let bytes = field(good, "record");
    let mut push = |why: &str, bytes: &[u8], change: &[(&str, Value)]| {
        let mut entry = json!({
            "why": why, "what": "record", "bytes": encode(bytes),
            "from": good["from"], "exchange": good["exchange"], "index": good["index"],
            "route": good["route"], "epoch": good["epoch"],
        });
        for (field, value) in change {
            entry[*field] = value.clone();
        }
        out.push(entry);
    };
    for (why, at) in [
        ("another version", 0),
        ("another epoch", 1),
        ("an unknown flag", 2),
        ("another direction", 3),
        ("another session", 4),
        ("another exchange", 27),
        ("another index", 31),
        ("another text", 32),
        ("another tag", bytes.len() - 40),
        ("another mac", bytes.len() - 1),
    ] {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        push(why, &changed, &[]);
    }
    push("cut short", &bytes[..bytes.len() - 1], &[]);
    push(
        "another route",
        &bytes,
        &[("route", encode(b"other-service"))],
    );
    push("a replay", &bytes, &[("again", json!(true))]);
    out
}

/// Offers one entry of `refused` to this crate, in the state that the format says.
pub(crate) fn refuse(file: &File, read: &Value, entry: &Value) {
    let (why, what) = (&entry["why"], entry["what"].as_str().unwrap());
    let bytes = field(entry, "bytes");
    let nodes = Nodes::of(file, read);
    let now = entry["now"].as_u64().map_or(NOW, UnixTime::from_millis);
    let is_again = entry["again"] == true;
    if what == "offer" {
        PeerKey::from_offer(&nodes.initiator, &bytes, &Trusting).unwrap_err();
        return;
    }
    let peer = nodes.peer();
    let (waiting, first) = Initiator::start(&nodes.initiator, &peer, b"token i", NOW).unwrap();
    assert_eq!(first, field(read, "first_message"));
    let respond = |bytes: &[u8], now| {
        let checked = nodes.responder.check(bytes, now)?;
        nodes
            .responder
            .respond(&checked, b"token r", &Trusting, now)
    };
    if what == "first_message" {
        if is_again {
            respond(&bytes, now).unwrap();
        }
        respond(&bytes, now).expect_err(&why.to_string());
        return;
    }
    let (reply, responder) = respond(&first, NOW).unwrap();
    if what == "reply" {
        waiting
            .finish(&bytes, &Trusting, now)
            .expect_err(&why.to_string());
        return;
    }
    let initiator = Arc::new(waiting.finish(&reply, &Trusting, NOW).unwrap());
    let responder = Arc::new(responder);
    match what {
        "record" => {
            let mut record = BytesMut::from(bytes.as_slice());
            let route = field(entry, "route");
            if is_again {
                let mut first = record.clone();
                responder.accept(&route, &mut first, instant()).unwrap();
            }
            let accepted = responder.accept(&route, &mut record, instant());
            accepted.expect_err(&why.to_string());
        }
        "resumption" => {
            let resume = |now| {
                let at = (&*responder, bytes.as_slice());
                nodes.responder.resume(at, b"token r", &Trusting, now)
            };
            if is_again {
                resume(now).unwrap();
            }
            resume(now).expect_err(&why.to_string());
        }
        "resumption_reply" => {
            let later = UnixTime::from_millis(NOW.as_millis() + 5_000);
            let (waiting, message) =
                Resuming::start(&nodes.initiator, &initiator, b"", later).unwrap();
            assert_eq!(message, field(&read["resumed"], "message"));
            let finished = waiting.finish(&bytes, &Trusting, later);
            finished.expect_err(&why.to_string());
        }
        other => unreachable!("{other}"),
    }
}
