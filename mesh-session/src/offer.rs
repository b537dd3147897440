//! The key offer: what an initiator must know of a responder before it can say anything.

use mesh_crypto::Fingerprint;
use mesh_crypto::RsaPublicKey;
use mesh_crypto::agreement::MlKem768Key;

use crate::Error;
use crate::KeyClaim;
use crate::Local;
use crate::Suite;
use crate::VerifyPeer;
use crate::schedule::SIGN_OFFER;
use crate::shares::Shares;
use crate::shares::hybrid_field;
use crate::wire;
use crate::wire::Reader;

/// A responder as an initiator knows it: name, verified RSA key, suites and offered share.
///
/// It stays good until the responder restarts or makes a new offer; the responder then answers
/// [`Error::StaleOffer`]. How long to trust the verification is for the holder of this to decide.
#[derive(Clone, Debug)]
pub struct PeerKey {
    pub(crate) name: String,
    pub(crate) key: RsaPublicKey,
    pub(crate) suites: Vec<Suite>,
    pub(crate) share: [u8; 32],
    /// Empty where no suite of the offer has ML-KEM.
    pub(crate) ek: Vec<u8>,
    pub(crate) offer_hash: [u8; 32],
}

impl PeerKey {
    /// Reads an offer, checks the signature that its own key made, and asks the verifier whether that key is the
    /// peer's.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] or [`Error::Version`] if it is no offer, [`Error::Suite`] if nothing in it is accepted
    /// here, [`Error::KeyTooSmall`], [`Error::Open`] if the signature does not verify, [`Error::Refused`] if the
    /// verifier refuses.
    pub fn from_offer(
        local: &Local,
        offer: &[u8],
        verifier: &dyn VerifyPeer,
    ) -> Result<Self, Error> {
        let mut reader = Reader::message("key offer", wire::KIND_OFFER, offer)?;
        let [count] = reader.array()?;
        let codes = reader.take(usize::from(count) * 2)?;
        let (codes, _) = codes.as_chunks::<2>();
        let codes = || codes.iter().copied().map(u16::from_be_bytes);
        // Suites of later versions of this software are passed over.
        let suites: Vec<_> = codes().filter_map(Suite::from_code).collect();
        let share = reader.array()?;
        let is_hybrid = codes().any(Suite::code_is_hybrid);
        let ek = hybrid_field(&mut reader, is_hybrid, MlKem768Key::EK_LEN)?.unwrap_or_default();
        let name = reader.name()?;
        let spki = reader.field(wire::MAX_SPKI)?;
        let attestation = reader.field(wire::MAX_ATTESTATION)?;
        let signed = reader.so_far();
        let signature = reader.field(wire::MAX_RSA)?;
        reader.end()?;
        let key = RsaPublicKey::from_spki_der(&*local.engine, spki).or(Err(Error::Malformed {
            what: "rsa key in the key offer",
        }))?;
        local.check_bits(key.bits().bits())?;
        let message = [SIGN_OFFER, &local.engine.sha256(&[signed])].concat();
        key.verify_pss(&message, signature).or(Err(Error::Open))?;
        let claim = KeyClaim {
            name,
            spki,
            fingerprint: key.fingerprint(),
            attestation,
        };
        verifier.verify_key(&claim).map_err(Error::Refused)?;
        let peer = Self {
            name: name.to_owned(),
            key,
            suites,
            share,
            ek: ek.to_vec(),
            offer_hash: local.engine.sha256(&[offer]),
        };
        peer.choose_suite(&local.config.suites)?;
        Ok(peer)
    }

    /// Who the peer is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which key it has.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// The first of ours that the peer offers too.
    pub(crate) fn choose_suite(&self, ours: &[Suite]) -> Result<Suite, Error> {
        ours.iter()
            .copied()
            .find(|suite| self.suites.contains(suite))
            .ok_or(Error::Suite)
    }
}

/// Builds and signs the offer of this side with fresh shares.
pub(crate) fn build(local: &Local, shares: &Shares) -> Result<Vec<u8>, Error> {
    let identity = &local.identity;
    let suites = &local.config.suites;
    let mut out = vec![wire::VERSION, wire::KIND_OFFER];
    // No more suites exist than fit, and none is there twice.
    out.push(u8::try_from(suites.len()).or(Err(Error::Suite))?);
    out.extend(suites.iter().flat_map(|suite| suite.code().to_be_bytes()));
    out.extend_from_slice(shares.share());
    out.extend_from_slice(shares.ek());
    wire::put(&mut out, "the name", identity.name().as_bytes())?;
    wire::put(&mut out, "the key", identity.key().public().spki_der())?;
    wire::put(&mut out, "the attestation", identity.attestation())?;
    let message = [SIGN_OFFER, &local.engine.sha256(&[&out])].concat();
    let signature = identity
        .key()
        .sign_pss(&message, &*local.random)
        .map_err(Error::Crypto)?;
    wire::put(&mut out, "the signature", &signature)?;
    Ok(out)
}
