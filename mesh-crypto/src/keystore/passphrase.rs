//! Keys that are encrypted on disk.
//!
//! They are PKCS#8 `EncryptedPrivateKeyInfo` as `openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 600000` writes it, and what
//! that command reads. PBKDF2 and not scrypt, because OpenSSL reads scrypt only up to 32 MiB of memory, which is less
//! than is recommended for it today.
//!
//! Passphrase, plain text and buffers are wiped. The key that PBKDF2 gives lives for the length of a call on the stack of
//! the crate `pkcs5`, which does not wipe it.
//!
//! # Sources
//!
//! RFC 5958 (PKCS#8), RFC 8018 sections 5.2, 6.2 and A.4 (PBKDF2, PBES2), RFC 7914 section 7 (scrypt parameters), OWASP
//! "Password Storage Cheat Sheet" (600,000 iterations of PBKDF2-HMAC-SHA256).

use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::Encode as _;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::pkcs5::pbes2::Parameters;
use zeroize::Zeroizing;

use super::Protection;
use crate::Error;
use crate::Random;
use crate::Secret;

/// A passphrase, and where salts come from.
pub(super) struct Passphrase {
    passphrase: Secret,
    random: Arc<dyn Random>,
}

impl Passphrase {
    pub(super) fn new(passphrase: Secret, random: Arc<dyn Random>) -> Self {
        Self { passphrase, random }
    }

    // In a frame of its own, so that what it leaves on the stack lies below its caller's.
    #[inline(never)]
    fn decrypt(&self, der: &Secret) -> Result<Option<Secret>, Error> {
        let Ok(info) = EncryptedPrivateKeyInfoRef::try_from(der.expose()) else {
            return Err(Error::KeyRejected {
                what: "the encrypted PKCS#8 key",
            });
        };
        let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
            return Err(UNSUPPORTED);
        };
        if !is_affordable(&parameters.kdf) {
            return Err(UNSUPPORTED);
        }
        let mut buffer = Zeroizing::new(info.encrypted_data.as_bytes().to_vec());
        match parameters.decrypt_in_place(self.passphrase.expose(), &mut buffer) {
            Ok(der) => Ok(Some(Secret::from_slice(der))),
            Err(pkcs8::pkcs5::Error::DecryptFailed) => Ok(None),
            Err(_) => Err(UNSUPPORTED),
        }
    }
}

impl Protection for Passphrase {
    fn seal(&self, der: &Secret) -> Result<Secret, Error> {
        let (mut salt, mut iv) = ([0; SALT_LEN], [0; BLOCK_LEN]);
        self.random.fill(&mut salt)?;
        self.random.fill(&mut iv)?;
        let failed = Error::Engine {
            action: "encrypt a key for the disk",
        };
        let sealed = || -> pkcs8::Result<Vec<u8>> {
            let parameters = Parameters::generate_pbkdf2_sha256_aes256cbc(ITERATIONS, &salt, iv)?;
            let mut buffer = Zeroizing::new(vec![0; der.len() + BLOCK_LEN]);
            let (start, _) = buffer.split_at_mut(der.len());
            start.copy_from_slice(der.expose());
            let data =
                parameters.encrypt_in_place(self.passphrase.expose(), &mut buffer, der.len())?;
            let info = EncryptedPrivateKeyInfoRef {
                encryption_algorithm: parameters.into(),
                encrypted_data: OctetStringRef::new(data)?,
            };
            Ok(info.to_der()?)
        };
        sealed().map(Secret::new).or(Err(failed))
    }

    fn open(&self, der: &Secret) -> Result<Option<Secret>, Error> {
        let opened = self.decrypt(der);
        wipe_stack();
        opened
    }
}

impl Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(redacted)")
    }
}

/// Overwrites what the functions that were called before left on the stack: the decryption of the library keeps blocks of
/// the key there.
#[inline(never)]
fn wipe_stack() {
    std::hint::black_box(&mut [0_u8; 16 * 1024]);
}

/// Whether opening takes less than about ten seconds and 256 MiB, whatever the file says.
fn is_affordable(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Pbkdf2(pbkdf2) => (1..=MAX_ITERATIONS).contains(&pbkdf2.iteration_count),
        Kdf::Scrypt(scrypt) => {
            let block = 128 * u64::from(scrypt.block_size);
            let memory = block.checked_mul(scrypt.cost_parameter);
            scrypt.cost_parameter.is_power_of_two()
                && scrypt.cost_parameter > 1
                && memory.is_some_and(|memory| (1..=MAX_MEMORY).contains(&memory))
                && (1..=MAX_PARALLEL).contains(&scrypt.parallelization)
        }
        _ => false,
    }
}

/// Of PBKDF2-HMAC-SHA256, as OWASP recommends since 2023; about a fifth of a second.
const ITERATIONS: u32 = 600_000;
/// RFC 8018 section 4.1 asks for 8 at least, NIST SP 800-132 section 5.1 for 16.
const SALT_LEN: usize = 16;
const BLOCK_LEN: usize = 16;
/// RFC 8018 section 4.2: "for especially critical keys ... 10,000,000 may be appropriate".
const MAX_ITERATIONS: u32 = 10_000_000;
/// Twice what OWASP recommends for scrypt (N = 2^17, r = 8, p = 1).
const MAX_MEMORY: u64 = 256 << 20;
const MAX_PARALLEL: u16 = 16;
const UNSUPPORTED: Error = Error::KeyRejected {
    what: "the encryption of the PKCS#8 key (PBES2 with PBKDF2-HMAC-SHA2 or scrypt is read)",
};

#[cfg(test)]
mod tests {
    use pkcs8::pkcs5::pbes2::ScryptParams;

    use super::*;

    #[test]
    fn what_costs_too_much_to_open_is_not_opened() {
        let pbkdf2 = |count| {
            let parameters = Parameters::generate_pbkdf2_sha256_aes256cbc(count, &[7; 8], [0; 16]);
            is_affordable(&parameters.unwrap().kdf)
        };
        assert!(pbkdf2(1) && pbkdf2(ITERATIONS) && pbkdf2(10_000_000));
        assert!(!pbkdf2(0) && !pbkdf2(10_000_001) && !pbkdf2(100_000_000));

        let scrypt = |cost_parameter, block_size, parallelization| {
            is_affordable(&Kdf::Scrypt(ScryptParams {
                salt: [7; 8].as_slice().try_into().unwrap(),
                cost_parameter,
                block_size,
                parallelization,
                key_length: None,
            }))
        };
        assert!(scrypt(1 << 14, 8, 1) && scrypt(1 << 17, 8, 1) && scrypt(1 << 18, 8, 16));
        // Among them is the cost of 0, at which the library would panic.
        for (n, r, p) in [
            (0, 8, 1),
            (1, 8, 1),
            (3, 8, 1),
            (1 << 19, 8, 1),
            (u64::MAX, 8, 1),
            (1 << 63, u16::MAX, 1),
            (1 << 14, 0, 1),
            (1 << 14, 8, 0),
            (1 << 14, 8, 17),
        ] {
            assert!(!scrypt(n, r, p), "N {n}, r {r}, p {p}");
        }
    }
}
