//! Encryption.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use mesh_session::LimiterConfig;
use mesh_transport::session::SessionConfig as SessionServerConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::session::KeyRotationConfig;
use super::session::PostQuantum;
use super::session::RecordMac;
use super::value;

/// How messages between nodes are protected.
#[non_exhaustive]
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// `strict`: whoever shows no certificate gets nothing. `permissive`: the port for other nodes takes plaintext HTTP too,
    /// while a mesh is introduced; who calls so is `anonymous` to rules, and the node says loudly that it does. Default
    /// `strict`.
    pub mode: SecurityMode,
    /// Whether the other side of a TLS connection must say by ALPN what it speaks: `required`, `optional` or `ignored`. Only
    /// proxies that pass on TCP without a look inside say nothing, or something else: Consul's built-in one says `h2`
    /// whatever follows, and needs `ignored` where that is HTTP/1.1. Who offers only other protocols is always refused.
    /// Default `required`.
    pub alpn: Alpn,
    /// `hybrid`: an end-to-end session inside mTLS. `mtls`: mTLS alone, cheaper, readable by a hop that ends TLS.
    /// Default `hybrid`.
    pub encryption: Encryption,
    /// Bits of the RSA identity key: 2048, 3072 or 4096. Each handshake costs one private operation, 1.7 ms at 4096.
    /// Default 4096.
    #[schemars(with = "u16", extend("enum" = [2048, 3072, 4096]))]
    pub rsa_key_size: RsaKeySize,
    /// Bits of the AES session keys: 128, 192 or 256. Default 256.
    #[schemars(with = "u16", extend("enum" = [128, 192, 256]))]
    pub aes_key_size: AesKeySize,
    /// ML-KEM-768 in the agreement of sessions: `prefer`, `require` or `off`. Default `prefer`.
    pub post_quantum: PostQuantum,
    /// What the HMAC of a sealed message covers: `full` or `tag`. Default `full`.
    pub record_mac: RecordMac,
    /// Folder of the RSA identity keys; made on first use. Default `keys`.
    pub keys_dir: PathBuf,
    /// File with the passphrase that the identity keys are encrypted with; nobody but this user may read it. Default:
    /// not encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub keys_passphrase_file: Option<PathBuf>,
    /// When keys are replaced.
    pub key_rotation: KeyRotationConfig,
    /// How long a session lives before a new handshake. Default `1h`.
    #[serde(with = "value::duration")]
    #[schemars(with = "String")]
    pub session_timeout: Duration,
    /// How much handshakes of sessions may cost this node.
    pub handshakes: HandshakesConfig,
    /// Who may probe this node with `mesh-node prove`: a service or a SPIFFE id. Its requests never reach the application.
    /// Absent: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub probe: Option<String>,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            mode: SecurityMode::default(),
            alpn: Alpn::default(),
            encryption: Encryption::default(),
            rsa_key_size: RsaKeySize::default(),
            aes_key_size: AesKeySize::default(),
            post_quantum: PostQuantum::default(),
            record_mac: RecordMac::default(),
            keys_dir: PathBuf::from("keys"),
            keys_passphrase_file: None,
            key_rotation: KeyRotationConfig::default(),
            session_timeout: SESSION_TIMEOUT,
            handshakes: HandshakesConfig::default(),
            probe: None,
        }
    }
}

/// How much handshakes of sessions may cost this node: each makes its private key work twice, 3.5 ms at 4096 bits. A peer
/// is a SPIFFE id, so all instances of a service are one.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HandshakesConfig {
    /// Private keys at work at the same time, each on a thread of its own. More ends a rush earlier, where there are cores
    /// to spare. Default 1.
    pub max_working: NonZeroU32,
    /// Handshakes under way at the same time, waiting ones too; who comes then is told when to come again. Default 256: the
    /// last of them waits 0.9 s.
    pub max_under_way: NonZeroU32,
    /// Handshakes of one peer under way at the same time. Default 8.
    pub max_per_peer: NonZeroU32,
    /// Handshakes that one peer may ask for at once, as its instances do when this node has restarted. Default 32.
    pub burst: NonZeroU32,
    /// Handshakes a second that one peer may ask for in the long run. Default 8, which is 3 % of a core.
    pub per_second: NonZeroU32,
    /// How many times the price of a good handshake one costs its peer that made the private key work for nothing. Default 4.
    pub failure_cost: NonZeroU32,
}

impl Default for HandshakesConfig {
    fn default() -> Self {
        let limits = LimiterConfig::default();
        Self {
            max_working: SessionServerConfig::default().max_handshakes,
            max_under_way: limits.max_under_way,
            max_per_peer: limits.max_per_peer,
            burst: limits.burst,
            per_second: limits.per_second,
            failure_cost: limits.failure_cost,
        }
    }
}

/// Whether callers without a certificate are listened to.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityMode {
    /// They are not.
    #[default]
    Strict,
    /// They are, and are anonymous. For migration only.
    Permissive,
}

/// Whether the other side of a TLS connection must say what it speaks.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpn {
    /// It must.
    #[default]
    Required,
    /// It may say nothing.
    Optional,
    /// It may say anything: the first bytes of a connection tell HTTP/2 from HTTP/1.1.
    Ignored,
}

/// How messages between nodes are protected.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// A hybrid session, end to end, inside mTLS.
    #[default]
    Hybrid,
    /// Mutual TLS alone.
    Mtls,
}

/// Size of the RSA identity key.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum RsaKeySize {
    /// 2048 bits.
    Rsa2048,
    /// 3072 bits.
    Rsa3072,
    /// 4096 bits.
    #[default]
    Rsa4096,
}

impl RsaKeySize {
    /// The size in bits.
    pub fn bits(self) -> u16 {
        match self {
            Self::Rsa2048 => 2048,
            Self::Rsa3072 => 3072,
            Self::Rsa4096 => 4096,
        }
    }
}

impl TryFrom<u16> for RsaKeySize {
    type Error = &'static str;

    fn try_from(bits: u16) -> Result<Self, Self::Error> {
        match bits {
            2048 => Ok(Self::Rsa2048),
            3072 => Ok(Self::Rsa3072),
            4096 => Ok(Self::Rsa4096),
            _ => Err("is not an RSA key size; allowed here: 2048, 3072, 4096"),
        }
    }
}

impl From<RsaKeySize> for u16 {
    fn from(size: RsaKeySize) -> Self {
        size.bits()
    }
}

/// Size of the AES session keys.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum AesKeySize {
    /// 128 bits.
    Aes128,
    /// 192 bits.
    Aes192,
    /// 256 bits.
    #[default]
    Aes256,
}

impl AesKeySize {
    /// The size in bits.
    pub fn bits(self) -> u16 {
        match self {
            Self::Aes128 => 128,
            Self::Aes192 => 192,
            Self::Aes256 => 256,
        }
    }
}

impl TryFrom<u16> for AesKeySize {
    type Error = &'static str;

    fn try_from(bits: u16) -> Result<Self, Self::Error> {
        match bits {
            128 => Ok(Self::Aes128),
            192 => Ok(Self::Aes192),
            256 => Ok(Self::Aes256),
            _ => Err("is not an AES key size; allowed here: 128, 192, 256"),
        }
    }
}

impl From<AesKeySize> for u16 {
    fn from(size: AesKeySize) -> Self {
        size.bits()
    }
}

/// DESIGN section 7: session timeout 1 h.
const SESSION_TIMEOUT: Duration = Duration::from_hours(1);
