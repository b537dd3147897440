//! Against a real HTTPS server on loopback that does as it is told, and counts who asks.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use mesh_resilience::random::SplitMix64;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::fetch::FetchError;
use super::*;
use crate::config::AuthConfig;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://login.example.org/";

/// What the server does with a request.
#[derive(Clone, Debug)]
enum Answer {
    Set(String),
    Redirect,
    Status,
    /// So many bytes, told or not.
    Bytes(usize, bool),
    /// A byte now and then.
    Drip,
    /// Ends without an answer.
    Close,
}

/// An HTTPS server of an issuer.
struct Server {
    url: String,
    dir: TempDir,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "the server of a test")]
    async fn start(answer: Answer) -> Self {
        let dir = TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(dir.path().join("ca.crt"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/keys?v=1", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(answer));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answer, count) =
                    (acceptor.clone(), Arc::clone(&shared), Arc::clone(&count));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    assert!(head.starts_with(b"GET /keys?v=1 HTTP/1.1\r\n"));
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = answer.lock().clone();
                    // The client may have gone.
                    drop(reply(&mut stream, answer).await);
                    drop(stream.shutdown().await);
                });
            }
        });
        Self {
            url,
            dir,
            answer,
            asked,
            task,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn now_answers(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    fn fetcher(&self, reach: Reach) -> Fetcher {
        let mut fetcher =
            Fetcher::new(&self.url, Some(&self.dir.path().join("ca.crt")), reach).unwrap();
        fetcher.deadline = Duration::from_secs(2);
        fetcher
    }

    async fn fetched(&self) -> Result<bytes::Bytes, FetchError> {
        self.fetcher(Reach::Private).fetch().await
    }
}

async fn reply(
    stream: &mut tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    answer: Answer,
) -> std::io::Result<()> {
    let head = |status: &str, more: String| format!("HTTP/1.1 {status}\r\n{more}\r\n");
    match answer {
        Answer::Set(body) => {
            let head = head("200 OK", format!("content-length: {}\r\n", body.len()));
            stream.write_all(format!("{head}{body}").as_bytes()).await
        }
        Answer::Redirect => {
            let more = "location: https://127.0.0.1:1/keys\r\ncontent-length: 0\r\n";
            stream
                .write_all(head("302 Found", more.to_owned()).as_bytes())
                .await
        }
        Answer::Status => {
            let more = "content-length: 0\r\n";
            stream
                .write_all(head("503 Service Unavailable", more.to_owned()).as_bytes())
                .await
        }
        Answer::Bytes(count, is_told) => {
            let more = if is_told {
                format!("content-length: {count}\r\n")
            } else {
                "connection: close\r\n".to_owned()
            };
            stream.write_all(head("200 OK", more).as_bytes()).await?;
            stream.write_all(&vec![b' '; count]).await
        }
        Answer::Drip => {
            let more = "content-length: 1000\r\n";
            stream
                .write_all(head("200 OK", more.to_owned()).as_bytes())
                .await?;
            loop {
                stream.write_all(b" ").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Answer::Close => Ok(()),
    }
}

/// A key of the issuer.
struct Signer {
    kid: String,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let kid = kid.to_owned();
        Self { kid, pair }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "x": b64(x), "y": b64(y) })
    }

    fn headers(&self) -> HeaderMap {
        let header = json!({ "alg": "ES256", "kid": self.kid });
        let claims = json!({ "iss": ISSUER, "sub": "alice", "aud": "orders", "exp": NOW + 600 });
        let message = format!(
            "{}.{}",
            b64(header.to_string().as_bytes()),
            b64(claims.to_string().as_bytes())
        );
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message.as_bytes())
            .unwrap();
        let value = format!("Bearer {message}.{}", b64(signature.as_ref()));
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&value).unwrap())])
    }
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn set(signers: &[&Signer]) -> Answer {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    Answer::Set(json!({ "keys": keys }).to_string())
}

/// A node's part that checks tokens, with its driver running.
struct Checker {
    users: Arc<UserCheck>,
    health: Arc<Board>,
    telemetry: Arc<Telemetry>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checker {
    #[expect(clippy::disallowed_methods, reason = "the driver of a test")]
    fn start(server: &Server, times: &Value) -> Self {
        let mut issuer = json!({ "issuer": ISSUER, "jwks_url": server.url });
        for (name, value) in times.as_object().unwrap() {
            issuer[name] = value.clone();
        }
        let config: AuthConfig = serde_json::from_value(json!({ "issuers": [issuer] })).unwrap();
        let telemetry = Arc::new(Telemetry::new());
        let random = SplitMix64::new(7);
        let users = UserCheck::new(&config, &telemetry, &random)
            .unwrap()
            .unwrap();
        let users = Arc::new(users);
        let health = Arc::new(Board::default());
        let driver = KeyDriver {
            issuer: ISSUER.into(),
            feed: users.feed(ISSUER).unwrap(),
            fetcher: server.fetcher(Reach::Private),
            users: Arc::clone(&users),
            shown: Arc::new(Shown::new(Arc::clone(&health), Arc::clone(&telemetry))),
        };
        Self {
            users,
            health,
            telemetry,
            task: tokio::spawn(driver.run()),
        }
    }

    async fn accepts(&self, signer: &Signer) -> bool {
        self.users
            .identify(&signer.headers(), "orders", NOW)
            .await
            .is_ok()
    }

    /// Waits until `holds`, or fails.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("{what} did not happen"));
    }
}

#[tokio::test]
async fn a_token_of_the_first_moment_waits_for_the_keys() {
    let key = Signer::new("a");
    let server = Server::start(set(&[&key])).await;
    let checker = Checker::start(&server, &json!({}));
    assert!(checker.accepts(&key).await);
    assert_eq!(server.asked(), 1);
    assert!(!checker.health.is_degraded());
}

#[tokio::test]
async fn a_key_that_replaces_another_is_fetched_when_the_first_token_names_it() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = Server::start(set(&[&old])).await;
    let checker = Checker::start(&server, &json!({ "min_interval": "1ms" }));
    assert!(checker.accepts(&old).await);
    server.now_answers(set(&[&new]));
    assert!(checker.accepts(&new).await, "no false refusal");
    assert!(!checker.accepts(&old).await, "its key is gone");
}

// threat 21
#[tokio::test]
async fn a_storm_of_unknown_keys_asks_the_issuer_once_an_interval() {
    let key = Signer::new("a");
    let server = Server::start(set(&[&key])).await;
    let checker = Checker::start(&server, &json!({ "min_interval": "500ms" }));
    assert!(checker.accepts(&key).await);
    let started = now();
    for number in 0..2_000 {
        let unknown = Signer {
            kid: format!("unknown-{number}"),
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        };
        let headers = unknown.headers();
        let many = (0..4).map(|_| checker.users.identify(&headers, "orders", NOW));
        for one in many {
            one.await.unwrap_err();
        }
    }
    let intervals = now().duration_since(started).as_millis() / 500;
    let allowed = usize::try_from(intervals).unwrap() + 2;
    assert!(
        server.asked() <= allowed,
        "{} fetches in {intervals} intervals",
        server.asked()
    );
    assert!(checker.accepts(&key).await, "good tokens pass meanwhile");
}

// threat 23
#[tokio::test]
async fn an_outage_leaves_the_last_good_keys_until_they_are_too_old() {
    let key = Signer::new("a");
    let server = Server::start(set(&[&key])).await;
    let times = json!({ "refresh": "200ms", "min_interval": "1ms", "max_stale": "2s" });
    let checker = Checker::start(&server, &times);
    assert!(checker.accepts(&key).await);
    for answer in [
        Answer::Status,
        Answer::Close,
        Answer::Set("{\"keys\":[]}".to_owned()),
    ] {
        let before = server.asked();
        server.now_answers(answer);
        checker
            .until("another fetch", |_| server.asked() > before + 1)
            .await;
        checker
            .until("the alarm", |checker| checker.health.is_degraded())
            .await;
    }
    checker
        .until("the end of the keys", |checker| {
            checker
                .health
                .page()
                .to_string()
                .contains("none of its tokens is accepted")
        })
        .await;
    assert!(!checker.accepts(&key).await, "fail closed");
    let metrics = checker.telemetry.text().unwrap();
    assert!(
        metrics.contains(
            "mesh_auth_jwks_fetches_total{issuer=\"https://login.example.org/\",result=\"refused\"}"
        ),
        "{metrics}"
    );
    server.now_answers(set(&[&key]));
    checker
        .until("recovery", |checker| !checker.health.is_degraded())
        .await;
    assert!(checker.accepts(&key).await);
}

// threat 22
#[tokio::test]
async fn redirects_other_answers_and_other_authorities_are_refused() {
    let server = Server::start(Answer::Redirect).await;
    assert!(matches!(server.fetched().await, Err(FetchError::Redirect)));
    assert_eq!(server.asked(), 1);
    server.now_answers(Answer::Status);
    assert!(matches!(
        server.fetched().await,
        Err(FetchError::Status { .. })
    ));
    server.now_answers(Answer::Close);
    assert!(matches!(server.fetched().await, Err(FetchError::Http(_))));
    let other = Server::start(Answer::Redirect).await;
    let ca = other.dir.path().join("ca.crt");
    let mistrustful = Fetcher::new(&server.url, Some(&ca), Reach::Private).unwrap();
    let asked = server.asked();
    assert!(matches!(mistrustful.fetch().await, Err(FetchError::Tls(_))));
    assert_eq!(server.asked(), asked);
    let by_name = server.url.replace("127.0.0.1", "localhost");
    let ca = server.dir.path().join("ca.crt");
    let misnamed = Fetcher::new(&by_name, Some(&ca), Reach::Private).unwrap();
    assert!(matches!(misnamed.fetch().await, Err(FetchError::Tls(_))));
    for url in [
        "http://127.0.0.1/keys",
        "file:///etc/passwd",
        "https:///keys",
        "127.0.0.1",
    ] {
        Fetcher::new(url, Some(&ca), Reach::Private).unwrap_err();
    }
}

// threat 22
#[tokio::test]
async fn an_answer_that_is_too_long_or_too_slow_is_cut() {
    let server = Server::start(Answer::Bytes(mesh_auth::token::MAX_SET_BYTES, true)).await;
    assert_eq!(
        server.fetched().await.unwrap().len(),
        mesh_auth::token::MAX_SET_BYTES
    );
    for is_told in [true, false] {
        server.now_answers(Answer::Bytes(mesh_auth::token::MAX_SET_BYTES + 1, is_told));
        assert!(
            matches!(server.fetched().await, Err(FetchError::Body(_))),
            "{is_told}"
        );
    }
    server.now_answers(Answer::Drip);
    assert!(matches!(server.fetched().await, Err(FetchError::TooSlow)));
}

// threat 22
#[tokio::test]
async fn an_address_that_may_not_be_reached_is_never_connected_to() {
    let server = Server::start(Answer::Redirect).await;
    let public = server.fetcher(Reach::Public).fetch().await;
    assert!(
        matches!(public, Err(FetchError::Private { .. })),
        "{public:?}"
    );
    assert_eq!(server.asked(), 0);
    let ca = server.dir.path().join("ca.crt");
    for url in [
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/",
        "https://[::ffff:169.254.169.254]/",
    ] {
        let metadata = Fetcher::new(url, Some(&ca), Reach::Private)
            .unwrap()
            .fetch()
            .await;
        assert!(
            matches!(metadata, Err(FetchError::Special(_))),
            "{url}: {metadata:?}"
        );
    }
}
