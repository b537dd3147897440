//! The key store: names of files, and keys that are encrypted.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;

use mesh_crypto::KeyStore;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::keystore::Directory;
use mesh_crypto::keystore::FileInfo;
use mesh_crypto::keystore::FileKind;
use mesh_crypto::keystore::FileSystem;
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;

use crate::keys::ALICE;
use crate::keys::ENGINE;

/// A directory with these names, each of which is the same file, or none.
#[derive(Clone, Debug, Default)]
struct Fake {
    names: Vec<OsString>,
    file: Option<Vec<u8>>,
    touched: Arc<Mutex<Touched>>,
}

#[derive(Debug, Default)]
struct Touched {
    read: Vec<String>,
    removed: Vec<String>,
}

impl FileSystem for Fake {
    fn user(&self) -> u32 {
        0
    }

    fn create_private_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open_dir(&self, _: &Path) -> io::Result<Box<dyn Directory>> {
        Ok(Box::new(self.clone()))
    }

    fn read(&self, _: &Path, _: u64) -> io::Result<(FileInfo, Secret)> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Directory for Fake {
    fn info(&self) -> io::Result<FileInfo> {
        Ok(FileInfo::new(FileKind::Dir, 0o700, 0))
    }

    fn names(&self, _: usize) -> io::Result<Vec<OsString>> {
        Ok(self.names.clone())
    }

    fn read(&self, name: &str, max_bytes: u64) -> io::Result<(FileInfo, Secret)> {
        self.touched.lock().unwrap().read.push(name.to_owned());
        match &self.file {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(file) if file.len() as u64 > max_bytes => Err(io::ErrorKind::InvalidData.into()),
            Some(file) => Ok((
                FileInfo::new(FileKind::File, 0o600, 0),
                Secret::from_slice(file),
            )),
        }
    }

    fn write_private(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.touched.lock().unwrap().removed.push(name.to_owned());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// A directory with a name on each line: only names of ours are read, only what we never finished is removed.
pub fn key_store_names(data: &[u8]) {
    let names = data.split(|byte| *byte == b'\n').map(name).collect();
    let files = Fake {
        names,
        ..Fake::default()
    };
    let touched = Arc::clone(&files.touched);
    let store = KeyStore::open(Arc::new(files), Path::new("keys")).unwrap();
    assert!(store.list(&**ENGINE).unwrap().is_empty());
    let touched = touched.lock().unwrap();
    assert!(touched.read.iter().all(|name| is_ours(name)));
    for removed in &touched.removed {
        let inner = removed
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(".new"));
        assert!(inner.is_some_and(is_ours), "{removed} was removed");
    }
}

#[cfg(unix)]
fn name(bytes: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes.to_vec())
}

/// `rsa-`, twenty digits, `-`, 64 hexadecimal digits in lower case, `.pem`.
fn is_ours(name: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let Some(middle) = name
        .strip_prefix("rsa-")
        .and_then(|name| name.strip_suffix(".pem"))
    else {
        return false;
    };
    middle.len() == 85
        && middle.bytes().enumerate().all(|(at, byte)| match at {
            0..20 => byte.is_ascii_digit(),
            20 => byte == b'-',
            _ => is_hex(byte),
        })
}

/// A key file in a store that has a passphrase. What would cost more than a thousand iterations is passed over: it is
/// the bound of the store that makes the rest affordable, and a test of its own that shows the bound.
pub fn encrypted_key(data: &[u8]) {
    static NAME: LazyLock<OsString> = LazyLock::new(|| {
        let print = ALICE.public().fingerprint().to_string();
        format!(
            "rsa-00000000000000000001-{}.pem",
            print.trim_start_matches("sha256:")
        )
        .into()
    });
    if !is_cheap(data) {
        return;
    }
    let files = Fake {
        names: vec![NAME.clone()],
        file: Some(data.to_vec()),
        ..Fake::default()
    };
    let store = KeyStore::open(Arc::new(files), Path::new("keys"))
        .unwrap()
        .with_passphrase(
            Secret::from_slice(b"open sesame"),
            Arc::new(SystemRandom::new()),
        );
    if let Ok(Some(key)) = store.newest(&**ENGINE) {
        assert_eq!(key.public().fingerprint(), ALICE.public().fingerprint());
    }
}

/// Whether opening takes no time to speak of, as far as can be told; what is no such key costs nothing.
fn is_cheap(data: &[u8]) -> bool {
    let letters: Vec<u8> = data
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"-----"))
        .flatten()
        .copied()
        .collect();
    let der = unarmoured(&letters);
    let Ok(info) = EncryptedPrivateKeyInfoRef::try_from(der.as_slice()) else {
        return true;
    };
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return true;
    };
    match &parameters.kdf {
        Kdf::Pbkdf2(pbkdf2) => !(1_001..=10_000_000).contains(&pbkdf2.iteration_count),
        Kdf::Scrypt(scrypt) => scrypt.cost_parameter <= 1_024 && scrypt.block_size <= 16,
        _ => true,
    }
}

/// Base64, read generously.
fn unarmoured(letters: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut word, mut bits) = (0_u32, 0);
    for letter in letters {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        word = word << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).unwrap());
            word &= (1 << bits) - 1;
        }
    }
    out
}
