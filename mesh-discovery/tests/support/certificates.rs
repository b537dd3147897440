//! Certificates of an authority that lives as long as a test.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;

/// The files of an authority, of a server on loopback and of a client, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) server_key: PathBuf,
    pub(crate) client: PathBuf,
    pub(crate) client_key: PathBuf,
}

impl Certificates {
    /// Makes them and writes them to `NAME-*.pem` in `dir`. The server is `localhost` and `127.0.0.1`, the client `client`.
    pub(crate) fn make(dir: &Path, name: &str) -> Self {
        let path = |part: &str| dir.join(format!("{name}-{part}.pem"));
        let files = Self {
            authority: path("authority"),
            server: path("server"),
            server_key: path("server-key"),
            client: path("client"),
            client_key: path("client-key"),
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        fs::write(&files.authority, authority.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for (names, certificate, key_file) in [
            (
                &["localhost", "127.0.0.1"][..],
                &files.server,
                &files.server_key,
            ),
            (&["client"], &files.client, &files.client_key),
        ] {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names).unwrap();
            // etcd's gateway takes no client with a common name once it asks for passwords.
            params.distinguished_name = DistinguishedName::new();
            let signed = params.signed_by(&key, &issuer).unwrap();
            fs::write(certificate, signed.pem()).unwrap();
            fs::write(key_file, key.serialize_pem()).unwrap();
        }
        files
    }

    /// What makes curl the client.
    pub(crate) fn curl_flags(&self) -> Vec<String> {
        let files = [
            ("--cacert", &self.authority),
            ("--cert", &self.client),
            ("--key", &self.client_key),
        ];
        let words = files.map(|(flag, file)| [flag.to_owned(), file.display().to_string()]);
        words.into_iter().flatten().collect()
    }
}
