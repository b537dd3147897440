//! What the types that hold secrets show of them, in whatever form: nothing.

use std::fmt::Debug;
use std::fmt::Display;
use std::sync::Arc;

use mesh_crypto::AeadAlgorithm;
use mesh_crypto::Error;
use mesh_crypto::KeyStore;
use mesh_crypto::MacKey;
use mesh_crypto::Prk;
use mesh_crypto::Random;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::aead::OpeningKey;
use mesh_crypto::aead::ParkedKey;
use mesh_crypto::aead::SealingKey;
use mesh_crypto::aead::SealingStream;
use mesh_crypto::agreement::MlKem768Key;
use mesh_crypto::agreement::X25519Key;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::engine::rustcrypto;
use mesh_crypto::envelope::Decryptor;
use mesh_crypto::envelope::Encryptor;
use mesh_crypto::envelope::Envelope;
use mesh_crypto::keystore::FileSystem;
use mesh_crypto::keystore::KeySet;
use mesh_crypto::keystore::OsFileSystem;
use mesh_crypto::keystore::PreviousKey;

use crate::memory::alone;

/// Fails to compile where a type has a trait: which of the two implementations is meant could not be told then.
macro_rules! lacks {
    ($trait:path: $($type:ty),* $(,)?) => {
        $(const _: fn() = || {
            trait Lacks<Which> {
                fn it() {}
            }
            impl<T: ?Sized> Lacks<()> for T {}
            struct Has;
            impl<T: ?Sized + $trait> Lacks<Has> for T {}
            <$type as Lacks<_>>::it();
        };)*
    };
}

lacks!(Display: Secret, RsaKeyPair, AeadKey, SealingKey, OpeningKey, ParkedKey, SealingStream, MacKey, Prk, X25519Key);
lacks!(Display: MlKem768Key, Encryptor, Decryptor<'static>, Envelope<'static>, KeyStore, KeySet, PreviousKey);
// A copy is one more place to wipe, and of a sealing key one more that counts from the same number.
lacks!(Clone: Secret, RsaKeyPair, AeadKey, SealingKey, OpeningKey, ParkedKey, SealingStream, MacKey, Prk, X25519Key);
lacks!(Clone: MlKem768Key, Encryptor, KeyStore, KeySet, PreviousKey);

/// Every byte is this one, which is in no name and no number that is printed beside it.
const BYTE: u8 = 0xb7;

#[derive(Debug)]
struct Same;

impl Random for Same {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        out.fill(BYTE);
        Ok(())
    }
}

/// No two bytes of the secret in a row, as numbers, digits, characters or base64.
fn check(value: &dyn Debug) {
    for text in [format!("{value:?}"), format!("{value:#?}")] {
        let lower = text.to_lowercase();
        let forms = [
            "b7b7", "b7, b7", "0xb7", "183, 183", "183,\n", "\\xb7", "t7e3", "e3t7", "··",
        ];
        for form in forms {
            assert!(!lower.contains(form), "{form} in {text}");
        }
    }
}

// threat 20
#[test]
fn nothing_that_holds_a_secret_prints_it() {
    let bytes = [BYTE; 32];
    let secret = Secret::from_slice(&bytes);
    check(&secret);
    for engine in [aws_lc(), rustcrypto()] {
        let aead = || engine.aead_key(AeadAlgorithm::Aes256Gcm, &bytes).unwrap();
        check(&aead());
        check(&engine.mac_key(&bytes));
        check(&Prk::from_secret(&*engine, &secret));
        check(&Prk::extract(&*engine, &bytes, &[&bytes]));
        check(&engine.x25519_key(&Same).unwrap());
        check(&engine.ml_kem_768_key(&Same).unwrap());
        let iv = [BYTE; 12];
        let sealing = Arc::new(SealingKey::counting(aead(), [0; 12]));
        check(&sealing);
        check(&sealing.next_stream().unwrap());
        check(&SealingKey::claiming(aead(), [0; 12], 1_024).park());
        check(&OpeningKey::new(aead(), [0; 12]));
        // The IV is part of what a session derives in secret.
        check(&SealingKey::counting(aead(), iv));
        check(&OpeningKey::new(aead(), iv));
    }
}

// threat 20
#[test]
fn nothing_that_holds_a_private_key_prints_it() {
    let _alone = alone();
    // Prime and exponent of this key, and of its text, in the forms that a debugger or a careless derive would show.
    let traces = [
        "e547adc8",
        "229, 71, 173",
        "1a82e4d4",
        "26, 130, 228",
        "df1anvs8ce9j",
    ];
    let folder = tempfile::tempdir().unwrap();
    let text = Secret::from_slice(include_bytes!("../data/keys/alice-2048.pem"));
    let files: Arc<dyn FileSystem> = Arc::new(OsFileSystem::new());
    let random: Arc<dyn Random> = Arc::new(SystemRandom::new());
    for engine in [aws_lc(), rustcrypto()] {
        let key = RsaKeyPair::from_pkcs8_pem(&*engine, &text).unwrap();
        let store = KeyStore::open(Arc::clone(&files), &folder.path().join("keys")).unwrap();
        let store = store.with_passphrase(Secret::from_slice(b"e547adc8"), Arc::clone(&random));
        let envelope = Envelope::new(&*engine, &*random).with_aad(b"e547adc8");
        let encryptor = envelope.encryptor(key.public(), &key).unwrap();
        let decryptor = envelope.decryptor(&key, key.public());
        let shown: [&dyn Debug; 5] = [&key, &store, &envelope, &encryptor, &decryptor];
        for value in shown {
            let text = format!("{value:?} {value:#?}").to_lowercase();
            for trace in traces {
                assert!(!text.contains(trace), "{trace} in {text}");
            }
        }
    }
}
