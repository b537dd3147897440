//! A Python process to talk to, and the Rust side of the conversation.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::BytesMut;
use mesh_crypto::Fingerprint;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::Secret;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_session::Config;
use mesh_session::Error;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::Opener;
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

/// The clock of both sides; it stands still.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const ROUTE: &str = "orders";
const RUST_TOKEN: &[u8] = b"rust's-token";
const PYTHON_TOKEN: &str = "python's-token";

#[expect(
    clippy::disallowed_methods,
    reason = "nothing here depends on how time passes, and an instant comes from nowhere else"
)]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// The folder of the Python programs.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

/// A Python that has what the second implementation needs. Says loudly when there is none.
#[expect(
    clippy::print_stderr,
    reason = "a test that is skipped must not look like one that passed"
)]
pub(crate) fn python() -> Option<PathBuf> {
    let named = std::env::var_os("MESH_TEST_SERVERS").map(PathBuf::from);
    // Tests lie in TARGET/PROFILE/deps; what cargo gives them as a place for files is TARGET/tmp.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let manifest = named.unwrap_or_else(|| target.join("servers/env.json"));
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let found = text.lines().find_map(|line| {
        line.trim()
            .strip_prefix(r#""python": ""#)?
            .split('"')
            .next()
    });
    let python = PathBuf::from(found.unwrap_or("python3"));
    let check = "import cryptography.hazmat.primitives.asymmetric.mlkem";
    let works = Command::new(&python).args(["-c", check]).output();
    if works.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!("SKIPPED: python with cryptography is not here; run `cargo xtask servers`");
    None
}

/// A Python program of the tests, not yet started.
pub(crate) fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command
        .args(["-B", "-u"])
        .arg(scripts().join(name))
        .env_clear();
    command
}

/// The key file of a side and what it holds. Made once, by Python, and kept in the target directory.
fn key(python: &Path, whose: &str, bits: usize) -> (PathBuf, RsaKeyPair) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("independent");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{whose}-{bits}.pem"));
    if !file.exists() {
        // Whoever is first wins, and nobody sees half a file.
        let made = folder.join(format!(
            "{whose}-{bits}-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let output = script(python, "peer.py")
            .args(["key", &bits.to_string()])
            .arg(&made)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        // A link is not made where there is a file; renaming would replace it under who reads it.
        drop(fs::hard_link(&made, &file));
        fs::remove_file(&made).unwrap();
    }
    let text = Secret::new(fs::read(&file).unwrap());
    let key = RsaKeyPair::from_pkcs8_pem(&*aws_lc(), &text).unwrap();
    (file, key)
}

/// What a test wants of the two sides.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) suites: String,
    pub(crate) bits: (usize, usize),
    pub(crate) more: Vec<&'static str>,
}

impl Setup {
    /// Both sides speak these suites, in this order.
    pub(crate) fn new(suites: &[Suite]) -> Self {
        let codes: Vec<String> = suites.iter().map(|suite| code(*suite)).collect();
        Self {
            config: Config::default().with_suites(suites.to_vec()),
            suites: codes.join(","),
            bits: (2048, 2048),
            more: Vec::new(),
        }
    }

    /// The sizes of Rust's and Python's keys.
    pub(crate) fn with_bits(mut self, rust: usize, python: usize) -> Self {
        self.bits = (rust, python);
        self
    }

    /// More options for the Python side.
    pub(crate) fn with_options(mut self, more: &[&'static str]) -> Self {
        self.more.extend(more);
        self
    }

    /// Rust answers, Python begins. `None` where there is no Python.
    pub(crate) fn python_initiates(&self) -> Option<Sides> {
        self.sides("initiate")
    }

    /// Rust begins, Python answers.
    pub(crate) fn rust_initiates(&self) -> Option<Sides> {
        self.sides("respond")
    }

    /// The two, connected.
    fn sides(&self, role: &str) -> Option<Sides> {
        let interpreter = python()?;
        let (_, ours) = key(&interpreter, "rust", self.bits.0);
        let (file, theirs) = key(&interpreter, "python", self.bits.1);
        let mut command = script(&interpreter, "peer.py");
        command
            .arg(role)
            .arg("--key")
            .arg(file)
            .args(["--name", "python", "--peer", "rust"])
            .args(["--pin", &hex(ours.public().fingerprint().as_bytes())])
            .args(["--token", PYTHON_TOKEN])
            .args(["--peer-token", str::from_utf8(RUST_TOKEN).unwrap()])
            .args(["--suites", &self.suites])
            .args(["--now", &NOW.as_millis().to_string()])
            .args(&self.more);
        let mut python = Python::start(&mut command);
        let pinned = Pinned(theirs.public().fingerprint());
        let identity = LocalIdentity::new("rust".to_owned(), Arc::new(ours), Vec::new());
        let random = Arc::new(SystemRandom::new());
        let local = Local::new(self.config.clone(), aws_lc(), random, identity);
        let stream = if role == "initiate" {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            python.ask(&format!("connect {port}"));
            listener.accept().unwrap().0
        } else {
            let port = python.ask("listen").parse().unwrap();
            TcpStream::connect(("127.0.0.1", port)).unwrap()
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Some(Sides {
            local: Arc::new(local.unwrap()),
            pinned,
            python,
            stream,
        })
    }
}

/// The suite as the protocol writes it.
pub(crate) fn code(suite: Suite) -> String {
    let agreement = match suite.agreement() {
        mesh_session::Agreement::X25519MlKem768 => "01",
        _ => "00",
    };
    let cover = match suite.mac() {
        mesh_session::MacCover::Record => '0',
        _ => '1',
    };
    let cipher = match suite.cipher() {
        mesh_crypto::AeadAlgorithm::Aes256Gcm => '1',
        mesh_crypto::AeadAlgorithm::Aes192Gcm => '2',
        _ => '3',
    };
    format!("{agreement}{cover}{cipher}")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Trusts one key and one token.
#[derive(Debug)]
pub(crate) struct Pinned(Fingerprint);

impl VerifyPeer for Pinned {
    fn verify_key(&self, claim: &KeyClaim<'_>) -> Result<(), PeerRefused> {
        if claim.name == "python" && claim.fingerprint == self.0 {
            return Ok(());
        }
        Err(PeerRefused::new("not the pinned key"))
    }

    fn verify_token(&self, _: &str, token: &[u8], _: &TokenContext<'_>) -> Result<(), PeerRefused> {
        if token == PYTHON_TOKEN.as_bytes() {
            return Ok(());
        }
        Err(PeerRefused::new("not the token"))
    }
}

/// A Python process that takes commands, a line each.
#[derive(Debug)]
pub(crate) struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    /// A command whose answer is heard later, because it waits for us.
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    /// The next answer, whatever it is.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next answer, which must be a good one.
    #[track_caller]
    pub(crate) fn hear_ok(&mut self) -> String {
        let line = self.hear();
        let rest = line.strip_prefix("ok ");
        rest.unwrap_or_else(|| panic!("python says: {line}"))
            .to_owned()
    }

    /// The next answer, which must be a refusal; gives what the peer may hear.
    #[track_caller]
    pub(crate) fn hear_refused(&mut self) -> String {
        let line = self.hear();
        let rest = line.strip_prefix("refused ");
        let rest = rest.unwrap_or_else(|| panic!("python says: {line}"));
        rest.split(':').next().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.hear_ok()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Both sides and what is between them.
#[derive(Debug)]
pub(crate) struct Sides {
    pub(crate) local: Arc<Local>,
    pub(crate) pinned: Pinned,
    pub(crate) python: Python,
    stream: TcpStream,
}

impl Sides {
    pub(crate) fn send(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap();
        self.stream.write_all(&length.to_be_bytes()).unwrap();
        self.stream.write_all(frame).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame).unwrap();
        frame
    }

    /// What Python answers to a message.
    pub(crate) fn exchange(&mut self, message: &[u8]) -> Vec<u8> {
        self.python.tell("answer");
        self.send(message);
        self.receive()
    }

    /// Python's key, from its offer.
    pub(crate) fn peer_key(&mut self) -> PeerKey {
        let offer = self.exchange(b"");
        self.python.hear_ok();
        PeerKey::from_offer(&self.local, &offer, &self.pinned).unwrap()
    }

    /// A session that Rust begins.
    pub(crate) fn rust_begins(&mut self) -> Arc<Session> {
        let peer = self.peer_key();
        let (waiting, init) = Initiator::start(&self.local, &peer, RUST_TOKEN, NOW).unwrap();
        let reply = self.exchange(&init);
        let said = self.python.hear_ok();
        let session = waiting.finish(&reply, &self.pinned, NOW).unwrap();
        agreed(&session, &said);
        Arc::new(session)
    }

    /// A session that Python begins, and what it sent for it.
    pub(crate) fn python_begins(&mut self, responder: &Responder) -> Arc<Session> {
        let init = self.first_message(responder);
        let (reply, session) = self.answer(responder, &init).unwrap();
        self.send(&reply);
        agreed(&session, &self.python.hear_ok());
        Arc::new(session)
    }

    /// Lets Python begin, as far as its first message.
    pub(crate) fn first_message(&mut self, responder: &Responder) -> Vec<u8> {
        self.python.tell("handshake");
        assert_eq!(self.receive(), b"");
        self.send(responder.offer());
        self.receive()
    }

    pub(crate) fn answer(
        &self,
        responder: &Responder,
        init: &[u8],
    ) -> Result<(Vec<u8>, Session), Error> {
        let checked = responder.check(init, NOW)?;
        responder.respond(&checked, RUST_TOKEN, &self.pinned, NOW)
    }

    /// A session that follows one that Rust began.
    pub(crate) fn rust_resumes(&mut self, session: &Arc<Session>) -> Arc<Session> {
        let (waiting, message) = Resuming::start(&self.local, session, RUST_TOKEN, NOW).unwrap();
        let reply = self.exchange(&message);
        let said = self.python.hear_ok();
        let resumed = waiting.finish(&reply, &self.pinned, NOW).unwrap();
        agreed(&resumed, &said);
        Arc::new(resumed)
    }

    /// A session that follows one that Python began.
    pub(crate) fn python_resumes(
        &mut self,
        responder: &Responder,
        session: &Arc<Session>,
    ) -> Arc<Session> {
        self.python.tell(&format!("resume {PYTHON_TOKEN}"));
        let message = self.receive();
        assert_eq!(
            mesh_session::resumed_session_of(&message),
            Some(session.id())
        );
        let (reply, resumed) = self.resume(responder, session, &message).unwrap();
        self.send(&reply);
        agreed(&resumed, &self.python.hear_ok());
        Arc::new(resumed)
    }

    pub(crate) fn resume(
        &self,
        responder: &Responder,
        session: &Session,
        message: &[u8],
    ) -> Result<(Vec<u8>, Session), Error> {
        responder.resume((session, message), RUST_TOKEN, &self.pinned, NOW)
    }

    /// Seals text, sends it, and looks at what Python made of it; gives the epoch.
    #[track_caller]
    pub(crate) fn say(&mut self, sealer: &mut Sealer, flags: Flags, text: &[u8]) -> u8 {
        let record = seal(sealer, flags, text);
        self.deliver(&record, (sealer.exchange(), flags), text)
    }

    /// Sends a sealed record, which Python must open.
    #[track_caller]
    pub(crate) fn deliver(&mut self, record: &[u8], of: (u64, Flags), text: &[u8]) -> u8 {
        self.python.tell(&format!("receive {ROUTE}"));
        self.send(record);
        let epoch = record[1];
        let expected = format!("{} {} {epoch} {}", of.0, of.1.bits(), hex(text));
        assert_eq!(self.python.hear_ok(), expected.trim_end());
        epoch
    }

    /// Sends something that Python must refuse.
    #[track_caller]
    pub(crate) fn deliver_in_vain(&mut self, record: &[u8]) {
        self.python.tell(&format!("receive {ROUTE}"));
        self.send(record);
        assert_eq!(self.python.hear_refused(), "refused");
    }

    /// Lets Python seal text, and gives the record.
    #[track_caller]
    pub(crate) fn let_say(&mut self, exchange: u64, flags: Flags, text: &[u8]) -> BytesMut {
        let (flags, text) = (flags.bits(), hex(text));
        let epoch = self.python.ask(&format!("send {exchange} {flags} {text}"));
        let record = self.receive();
        assert_eq!(record[1].to_string(), epoch);
        BytesMut::from(&*record)
    }

    /// Lets Python say something that must open; gives the epoch.
    #[track_caller]
    pub(crate) fn hear(
        &mut self,
        exchange: u64,
        opener: &mut Opener,
        (flags, text): (Flags, &[u8]),
    ) -> u8 {
        let mut record = self.let_say(exchange, flags, text);
        let epoch = record[1];
        let found = opener.open(&mut record).unwrap();
        assert_eq!((found, &*record), (flags, text));
        epoch
    }

    /// A request and its answer in an exchange that Rust begins.
    #[track_caller]
    pub(crate) fn rust_calls(&mut self, session: &Arc<Session>) {
        self.let_use(session);
        let (mut sealer, mut opener) = session.begin(ROUTE.as_bytes(), instant()).unwrap();
        let both = Flags::HEAD | Flags::END;
        self.say(&mut sealer, both, b"question");
        self.hear(sealer.exchange(), &mut opener, (both, b"answer"));
        opener.finish().unwrap();
    }

    /// A request and its answer in an exchange that Python begins.
    #[track_caller]
    pub(crate) fn python_calls(&mut self, session: &Arc<Session>) {
        self.let_use(session);
        let both = Flags::HEAD | Flags::END;
        let number = self.begin();
        let mut record = self.let_say(number, both, b"question");
        let (mut sealer, opener, first) = session
            .accept(ROUTE.as_bytes(), &mut record, instant())
            .unwrap();
        assert_eq!((first.flags, first.exchange), (both, number));
        assert_eq!(record, "question");
        opener.finish().unwrap();
        self.say(&mut sealer, both, b"answer");
    }

    /// Has Python go on in this session.
    #[track_caller]
    fn let_use(&mut self, session: &Session) {
        let id = hex(session.id().as_bytes());
        agreed(session, &self.python.ask(&format!("use {id}")));
    }

    /// Python's next exchange.
    #[track_caller]
    pub(crate) fn begin(&mut self) -> u64 {
        self.python.ask(&format!("begin {ROUTE}")).parse().unwrap()
    }
}

/// Both sides say the same of a session.
#[track_caller]
fn agreed(session: &Session, said: &str) {
    let expected = format!(
        "{} {} rust",
        hex(session.id().as_bytes()),
        code(session.suite())
    );
    assert_eq!((said, session.peer_name()), (expected.as_str(), "python"));
}

/// A record, ready to send.
#[track_caller]
pub(crate) fn seal(sealer: &mut Sealer, flags: Flags, text: &[u8]) -> BytesMut {
    let mut record = BytesMut::zeroed(Sealer::HEADER_ROOM);
    record.extend_from_slice(text);
    sealer.seal(flags, &mut record).unwrap();
    record
}

/// `message` with one bit turned.
pub(crate) fn turned(message: &[u8], at: usize) -> Vec<u8> {
    let mut changed = message.to_vec();
    changed[at] ^= 1 << (at % 8);
    changed
}
