//! What was proven, signed with the prober's certificate, and how somebody else checks it.

use std::time::Duration;
use std::time::SystemTime;

use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::PeerId;
use mesh_transport::tls::TrustBundles;
use mesh_transport::tls::verify_statement;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::UnixTime;
use serde::Deserialize;
use serde::Serialize;
use std::sync::Arc;

use super::plan::Call;
use crate::stack::probe::Found;

/// Everything that was tried.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Proof {
    /// Version of mesh-node that probed.
    pub(crate) version: String,
    /// When it was finished (RFC 3339, UTC).
    pub(crate) time: String,
    /// The service, its SPIFFE id and address.
    pub(crate) service: String,
    pub(crate) spiffe_id: String,
    pub(crate) address: String,
    /// SHA-256 of the policy that it was held against, as JSON with sorted keys.
    pub(crate) policy_sha256: String,
    pub(crate) probes: Vec<Probe>,
    /// Rules of which no probe could be made, or none that they decide, and why.
    pub(crate) unproven: Vec<Unproven>,
    pub(crate) attacks: Vec<Attack>,
}

/// One call and what became of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Probe {
    #[serde(flatten)]
    pub(crate) call: Call,
    pub(crate) expected: Found,
    /// What the node decided; absent where it gave no decision.
    pub(crate) found: Option<Found>,
    /// Why there is no decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) ok: bool,
}

/// A rule that nothing was shown of.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Unproven {
    pub(crate) rule: String,
    pub(crate) why: String,
}

/// Something that must not work.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Attack {
    pub(crate) what: String,
    /// What happened.
    pub(crate) seen: String,
    pub(crate) outcome: Outcome,
}

/// What became of an attack.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Refused,
    GotThrough,
    /// It could not be tried here.
    Skipped,
}

impl Proof {
    /// Whether the node did what the policy on paper says, and no attack got through.
    pub(crate) fn holds(&self) -> bool {
        let got_through = |attack: &Attack| attack.outcome == Outcome::GotThrough;
        let is_right = |probe: &Probe| probe.ok && probe.found.as_ref() == Some(&probe.expected);
        // To have shown nothing is no proof.
        !self.probes.is_empty()
            && self.probes.iter().all(is_right)
            && !self.attacks.iter().any(got_through)
    }

    /// The file: a first line for people, the proof, and what proves who made it.
    pub(crate) fn sign(&self, credentials: &Credentials) -> Result<String, String> {
        let proof = serde_json::to_string(self).map_err(|error| error.to_string())?;
        let signature = credentials
            .sign(&statement(&proof))
            .map_err(|error| error.to_string())?;
        let chain = credentials.chain().iter().map(|der| hex(der)).collect();
        let signed = Signed {
            proof,
            signature: hex(&signature),
            chain,
        };
        serde_json::to_string_pretty(&signed).map_err(|error| error.to_string())
    }
}

/// A proof as it is kept: the text that was signed, byte for byte, and the signature.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    /// JSON.
    proof: String,
    /// Hex: the signature scheme as in TLS, two bytes, then the signature over a label and the proof.
    signature: String,
    /// Hex of the DER of each certificate of the signer, leaf first.
    chain: Vec<String>,
}

/// Checks a file that [`Proof::sign`] made: who signed it under `bundles`, that not a byte of it changed, and that it is no
/// older than `max_age` at `now`. The signer's certificate is judged at the time that the report names, since it has ended
/// long before most reports are read; so whoever stole a prober's key can date a report back, but no further than that.
///
/// # Errors
///
/// The step that failed, as a sentence.
pub(crate) fn verify(
    text: &str,
    bundles: TrustBundles,
    (now, max_age): (SystemTime, Duration),
) -> Result<(Proof, PeerId), String> {
    let signed: Signed = serde_json::from_str(text)
        .map_err(|error| format!("this is no report of mesh-node prove: {error}"))?;
    let damaged = || "a certificate or the signature in the report is damaged".to_owned();
    let chain = signed
        .chain
        .iter()
        .map(|der| unhex(der).map(CertificateDer::from));
    let chain: Vec<_> = chain.collect::<Option<_>>().ok_or_else(damaged)?;
    let signature = unhex(&signed.signature).ok_or_else(damaged)?;
    let proof: Proof = serde_json::from_str(&signed.proof)
        .map_err(|error| format!("the report can't be read: {error}"))?;
    let time = humantime::parse_rfc3339(&proof.time)
        .map_err(|error| format!("the time of the report can't be read: {error}"))?;
    match now.duration_since(time) {
        Ok(age) if age <= max_age => {}
        Ok(_) => return Err(format!("it is of {} and older than --max-age", proof.time)),
        Err(_) => return Err(format!("it is of {}, which is yet to come", proof.time)),
    }
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let at = UnixTime::since_unix_epoch(since.unwrap_or(Duration::ZERO));
    let statement = statement(&signed.proof);
    let by = verify_statement(
        (Arc::new(SpiffeLeaf::new()), bundles),
        &chain,
        (&statement, &signature),
        at,
    );
    let by = by.map_err(|error| crate::stack::outbound::chain(&error))?;
    Ok((proof, by))
}

fn statement(proof: &str) -> Vec<u8> {
    [LABEL, proof.as_bytes()].concat()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    rest.is_empty().then(|| bytes.collect()).flatten()
}

/// Signatures of other statements with the same key are none of this one.
const LABEL: &[u8] = b"mesh-node prove 1\0";
