//! Finds every value of the key schedule with nothing but the primitives: labels and order are written down here a second
//! time.

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Engine;
use mesh_crypto::Prk;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::Secret;
use mesh_crypto::aead::OpeningKey;
use mesh_session::Agreement;
use mesh_session::MacCover;
use mesh_session::Suite;
use serde_json::Value;
use serde_json::json;

use crate::hex::encode;
use crate::hex::field;
use crate::scripted::Known;

/// Takes a message apart.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (field, rest) = self.0.split_at(len);
        self.0 = rest;
        field
    }

    fn vec(&mut self) -> &'a [u8] {
        let len = u16::from_be_bytes(self.take(2).try_into().unwrap());
        self.take(usize::from(len))
    }
}

fn expand(engine: &dyn Engine, prk: &[u8], info: &[&[u8]], len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Prk::from_secret(engine, &Secret::from_slice(prk))
        .expand(info, &mut out)
        .unwrap();
    out
}

/// HKDF-Extract is an HMAC.
fn extract(engine: &dyn Engine, salt: &[u8], secrets: &[&[u8]]) -> Vec<u8> {
    engine.mac_key(salt).sign(secrets).to_vec()
}

fn key_pair(engine: &dyn Engine, file: &Value, name: &str) -> RsaKeyPair {
    engine
        .rsa_from_pkcs8(&Secret::new(field(file, name)))
        .unwrap()
}

/// X25519 with a known scalar.
fn agree(engine: &dyn Engine, scalar: Vec<u8>, share: &[u8]) -> Vec<u8> {
    let key = engine.x25519_key(&Known(scalar)).unwrap();
    let agreed = key.agree(share.try_into().unwrap()).unwrap();
    agreed.expose().to_vec()
}

/// What ML-KEM gives with a known seed. An engine that takes no seed takes the file's word for it.
fn decapsulate(engine: &dyn Engine, at: (&Value, &str, &str), ciphertext: &[u8]) -> Vec<u8> {
    let (file, seed, secret) = at;
    if engine.name() == "rustcrypto" {
        let key = engine.ml_kem_768_key(&Known(field(file, seed))).unwrap();
        key.decapsulate(ciphertext).unwrap().expose().to_vec()
    } else {
        field(file, secret)
    }
}

fn open_box(engine: &dyn Engine, keys: &[u8], transcript: &[u8], sealed: &[u8]) -> Vec<u8> {
    let mut keys = Fields(keys);
    let (key, iv, mac) = (keys.take(32), keys.take(12), keys.take(32));
    let (body, tag) = sealed.split_at(sealed.len() - 32);
    engine
        .mac_key(mac)
        .verify(&[transcript, body], tag)
        .unwrap();
    let (text, tag) = body.split_at(body.len() - 16);
    let mut text = text.to_vec();
    let key = engine.aead_key(AeadAlgorithm::Aes256Gcm, key).unwrap();
    OpeningKey::new(key, iv.try_into().unwrap())
        .open((0, 0), transcript, &mut text, tag)
        .unwrap();
    text
}

/// What follows from a full handshake's messages and secrets, and checks of its signatures.
pub(crate) fn handshake(engine: &dyn Engine, suite: Suite, file: &Value) -> Value {
    let is_hybrid = suite.agreement() == Agreement::X25519MlKem768;
    let keys = [
        key_pair(engine, file, "initiator_pkcs8"),
        key_pair(engine, file, "responder_pkcs8"),
    ];
    let mut out = offer(engine, file, &keys);
    let secrets = first_message(engine, is_hybrid, (file, &keys), &mut out);
    reply(engine, is_hybrid, (file, &keys), (&secrets, &mut out));
    out
}

fn offer(engine: &dyn Engine, file: &Value, [_, responder]: &[RsaKeyPair; 2]) -> Value {
    let offer = field(file, "offer");
    let (signed, signature) = offer.split_at(offer.len() - responder.public().bits().modulus_len());
    let signed = engine.sha256(&[&signed[..signed.len() - 2]]);
    let message = [b"mesh-session v1 offer signature\0".as_slice(), &signed].concat();
    responder.public().verify_pss(&message, signature).unwrap();
    json!({ "offer_hash": encode(&engine.sha256(&[&offer])) })
}

/// The secrets of the first message: that of RSA, that of X25519, that of ML-KEM or nothing.
fn first_message(
    engine: &dyn Engine,
    is_hybrid: bool,
    (file, [initiator, responder]): (&Value, &[RsaKeyPair; 2]),
    out: &mut Value,
) -> [Vec<u8>; 3] {
    let said = |name: &str| field(file, name);
    let (offer, first) = (said("offer"), said("first_message"));
    let mut fields = Fields(&first);
    assert_eq!(fields.take(2), [1, 1]);
    assert_eq!(fields.take(2), said("suite"));
    assert_eq!(fields.take(32), engine.sha256(&[&offer]));
    let _time_and_random = fields.take(8 + 32);
    let share_i = fields.take(32);
    let ct_o = fields.take(if is_hybrid { 1_088 } else { 0 });
    let _ek_i = fields.take(if is_hybrid { 1_184 } else { 0 });
    let ct_i = fields.vec();
    let clear = &first[..first.len() - fields.0.len()];
    let sealed = fields.vec();
    let t_i = engine.sha256(&[b"mesh-session v1 init\0", clear]);
    let secret_i = responder.decrypt_oaep(ct_i, b"mesh-session v1 secret to responder");
    let secret_i = secret_i.unwrap();
    let d_o = agree(engine, said("x25519_o"), share_i);
    let k_o = is_hybrid.then(|| decapsulate(engine, (file, "ml_kem_o", "k_o"), ct_o));
    let secrets = [secret_i.expose(), &d_o, k_o.as_deref().unwrap_or_default()];
    let prk_i = extract(engine, &t_i, &secrets);
    let box_i = expand(engine, &prk_i, &[b"mesh-session v1 init box\0"], 76);
    let inner_i = open_box(engine, &box_i, &t_i, sealed);
    let mut fields = Fields(&inner_i);
    let (_name, spki, _attestation) = (fields.vec(), fields.vec(), fields.vec());
    let token_i = fields.vec();
    let signed = engine.sha256(&[&inner_i[..inner_i.len() - fields.0.len()]]);
    let label = b"mesh-session v1 initiator signature\0".as_slice();
    let key = RsaPublicKey::from_spki_der(engine, spki).unwrap();
    assert_eq!(key.fingerprint(), initiator.public().fingerprint());
    key.verify_pss(&[label, &t_i, &signed].concat(), fields.vec())
        .unwrap();
    let found: [(&str, &[u8]); 8] = [
        ("token_i", token_i),
        ("clear_i", clear),
        ("t_i", &t_i),
        ("secret_i", secret_i.expose()),
        ("d_o", &d_o),
        ("prk_i", &prk_i),
        ("box_i", &box_i),
        ("inner_i", &inner_i),
    ];
    put(
        out,
        found
            .into_iter()
            .chain(k_o.as_deref().map(|k_o| ("k_o", k_o))),
    );
    [secret_i.expose().to_vec(), d_o, k_o.unwrap_or_default()]
}

fn reply(
    engine: &dyn Engine,
    is_hybrid: bool,
    (file, [initiator, responder]): (&Value, &[RsaKeyPair; 2]),
    ([secret_i, d_o, k_o], out): (&[Vec<u8>; 3], &mut Value),
) {
    let said = |name: &str| field(file, name);
    let (first, reply) = (said("first_message"), said("reply"));
    let share_i = &first[76..108];
    let mut fields = Fields(&reply);
    assert_eq!(fields.take(2), [1, 2]);
    assert_eq!(fields.take(2), said("suite"));
    let _random = fields.take(32);
    let share_r = fields.take(32);
    let ct_e = fields.take(if is_hybrid { 1_088 } else { 0 });
    let ct_r = fields.vec();
    let clear = &reply[..reply.len() - fields.0.len()];
    let sealed = fields.vec();
    let t_r = engine.sha256(&[b"mesh-session v1 reply\0", &engine.sha256(&[&first]), clear]);
    let secret_r = initiator.decrypt_oaep(ct_r, b"mesh-session v1 secret to initiator");
    let secret_r = secret_r.unwrap();
    let d_e = agree(engine, said("x25519_i"), share_r);
    assert_eq!(d_e, agree(engine, said("x25519_r"), share_i));
    let k_e = is_hybrid.then(|| decapsulate(engine, (file, "ml_kem_i", "k_e"), ct_e));
    let kem_e = k_e.as_deref().unwrap_or_default();
    let secrets = [secret_i, secret_r.expose(), d_o, &d_e, k_o, kem_e];
    let prk = extract(engine, &t_r, &secrets);
    let box_r = expand(engine, &prk, &[b"mesh-session v1 reply box\0"], 76);
    let inner_r = open_box(engine, &box_r, &t_r, sealed);
    let mut fields = Fields(&inner_r);
    let token_r = fields.vec();
    let signed = engine.sha256(&[&inner_r[..inner_r.len() - fields.0.len()]]);
    let label = b"mesh-session v1 responder signature\0".as_slice();
    let key = responder.public();
    key.verify_pss(&[label, &t_r, &signed].concat(), fields.vec())
        .unwrap();
    let found: [(&str, &[u8]); 8] = [
        ("token_r", token_r),
        ("clear_r", clear),
        ("t_r", &t_r),
        ("secret_r", secret_r.expose()),
        ("d_e", &d_e),
        ("prk", &prk),
        ("box_r", &box_r),
        ("inner_r", &inner_r),
    ];
    put(
        out,
        found
            .into_iter()
            .chain(k_e.as_deref().map(|k_e| ("k_e", k_e))),
    );
    session(engine, out, (&prk, &t_r, sealed));
}

/// Whether these are the secrets that the reply was sealed with.
pub(crate) fn opens_reply(engine: &dyn Engine, file: &Value, secrets: &[Vec<u8>]) -> bool {
    let (transcript, reply) = (field(file, "t_r"), field(file, "reply"));
    let secrets: Vec<_> = secrets.iter().map(Vec::as_slice).collect();
    let prk = extract(engine, &transcript, &secrets);
    let keys = expand(engine, &prk, &[b"mesh-session v1 reply box\0"], 76);
    let sealed = &reply[field(file, "clear_r").len() + 2..];
    let (body, tag) = sealed.split_at(sealed.len() - 32);
    let mac = engine.mac_key(&keys[44..]);
    mac.verify(&[&transcript, body], tag).is_ok()
}

/// What follows from a resumption's messages and secrets.
pub(crate) fn resumption(
    engine: &dyn Engine,
    suite: Suite,
    (resumed, old): (&Value, &[u8]),
) -> Value {
    let is_hybrid = suite.agreement() == Agreement::X25519MlKem768;
    let said = |name: &str| field(resumed, name);
    let (message, reply) = (said("message"), said("reply"));
    let mut out = json!({});

    let mut fields = Fields(&message);
    assert_eq!(fields.take(2), [1, 4]);
    let _id_time_and_random = fields.take(16 + 8 + 32);
    let share_i = fields.take(32);
    let _ek_i = fields.take(if is_hybrid { 1_184 } else { 0 });
    let clear = &message[..message.len() - fields.0.len()];
    let t_u = engine.sha256(&[b"mesh-session v1 resume\0", clear]);
    let prk_u = extract(engine, &t_u, &[old]);
    let box_u = expand(engine, &prk_u, &[b"mesh-session v1 resume box\0"], 76);
    let inner_u = open_box(engine, &box_u, &t_u, fields.vec());
    let found: [(&str, &[u8]); 6] = [
        ("token_i", Fields(&inner_u).vec()),
        ("clear_u", clear),
        ("t_u", &t_u),
        ("prk_u", &prk_u),
        ("box_u", &box_u),
        ("inner_u", &inner_u),
    ];
    put(&mut out, found.into_iter());

    let mut fields = Fields(&reply);
    assert_eq!(fields.take(2), [1, 5]);
    let _random = fields.take(32);
    let share_r = fields.take(32);
    let ct_e = fields.take(if is_hybrid { 1_088 } else { 0 });
    let clear = &reply[..reply.len() - fields.0.len()];
    let sealed = fields.vec();
    let t_v = engine.sha256(&[
        b"mesh-session v1 resumed\0",
        &engine.sha256(&[&message]),
        clear,
    ]);
    let d_e = agree(engine, said("x25519_i"), share_r);
    assert_eq!(d_e, agree(engine, said("x25519_r"), share_i));
    let k_e = is_hybrid.then(|| decapsulate(engine, (resumed, "ml_kem_i", "k_e"), ct_e));
    let prk = extract(
        engine,
        &t_v,
        &[old, &d_e, k_e.as_deref().unwrap_or_default()],
    );
    let box_v = expand(engine, &prk, &[b"mesh-session v1 resumed box\0"], 76);
    let inner_v = open_box(engine, &box_v, &t_v, sealed);
    let found: [(&str, &[u8]); 7] = [
        ("token_r", Fields(&inner_v).vec()),
        ("clear_v", clear),
        ("t_v", &t_v),
        ("d_e", &d_e),
        ("prk", &prk),
        ("box_v", &box_v),
        ("inner_v", &inner_v),
    ];
    put(
        &mut out,
        found
            .into_iter()
            .chain(k_e.as_deref().map(|k_e| ("k_e", k_e))),
    );
    session(engine, &mut out, (&prk, &t_v, sealed));
    out
}

fn session(engine: &dyn Engine, out: &mut Value, (prk, transcript, sealed): (&[u8], &[u8], &[u8])) {
    let t_s = engine.sha256(&[b"mesh-session v1 session\0", transcript, sealed]);
    let derive = |label: &[u8], len| expand(engine, prk, &[label, &t_s], len);
    let mut chain = derive(b"mesh-session v1 chain\0", 32);
    let (id, resumption) = (
        derive(b"mesh-session v1 session id\0", 16),
        derive(b"mesh-session v1 resumption\0", 32),
    );
    let found: [(&str, &[u8]); 4] = [
        ("t_s", &t_s),
        ("id", &id),
        ("resumption", &resumption),
        ("chain_0", &chain),
    ];
    put(out, found.into_iter());
    let epochs = (0..EPOCHS).map(|epoch| {
        let keys = expand(engine, &chain, &[b"mesh-session v1 keys\0"], 152);
        let found = json!({ "epoch": epoch, "chain": encode(&chain), "keys": encode(&keys) });
        chain = expand(engine, &chain, &[b"mesh-session v1 next\0"], 32);
        found
    });
    out["epochs"] = epochs.collect();
}

fn put<'a>(out: &mut Value, found: impl Iterator<Item = (&'a str, &'a [u8])>) {
    for (name, value) in found {
        out[name] = encode(value);
    }
}

/// Opens every record with the keys of its epoch.
pub(crate) fn records(engine: &dyn Engine, suite: Suite, at: &Value) {
    let epochs: Vec<_> = at["epochs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|epoch| field(epoch, "keys"))
        .collect();
    let records = at["records"].as_array().unwrap();
    assert!(records.len() >= 3);
    for record in records {
        open_record(engine, suite, &epochs, record);
    }
}

/// As many as the records of the files use.
const EPOCHS: u8 = 7;

fn open_record(engine: &dyn Engine, suite: Suite, epochs: &[Vec<u8>], at: &Value) {
    let number = |name: &str| at[name].as_u64().unwrap();
    let bytes = field(at, "record");
    let is_forth = at["from"] == "initiator";
    let mut keys = Fields(&epochs[usize::try_from(number("epoch")).unwrap()]);
    if !is_forth {
        keys.take(76);
    }
    let (key, iv, mac_key) = (keys.take(32), keys.take(12), keys.take(32));
    let route = engine.sha256(&[&field(at, "route")]);
    let (header, rest) = bytes.split_at(32);
    assert_eq!(header[0], 1);
    assert_eq!(u64::from(header[1]), number("epoch"));
    assert_eq!(u64::from(header[2]), number("flags"));
    assert_eq!(header[3], if is_forth { 1 } else { 2 });
    assert_eq!(&header[20..28], number("exchange").to_be_bytes());
    assert_eq!(
        &header[28..],
        u32::try_from(number("index")).unwrap().to_be_bytes()
    );
    let (body, mac) = rest.split_at(rest.len() - 32);
    let (text, tag) = body.split_at(body.len() - 16);
    let mac_key = engine.mac_key(mac_key);
    match suite.mac() {
        MacCover::Record => mac_key.verify(&[&route, header, body], mac).unwrap(),
        _ => mac_key.verify(&[&route, header, tag], mac).unwrap(),
    }
    let cipher = suite.cipher();
    let key = engine.aead_key(cipher, &key[..cipher.key_len()]).unwrap();
    let position = (number("exchange"), u32::try_from(number("index")).unwrap());
    let mut text = text.to_vec();
    OpeningKey::new(key, iv.try_into().unwrap())
        .open(position, &[header, &route].concat(), &mut text, tag)
        .unwrap();
    assert_eq!(text, field(at, "plaintext"));
}
