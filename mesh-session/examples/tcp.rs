//! Two services over one TCP connection: offer, handshake, a hundred sealed calls in one batch, a clean close.
//!
//! Who listens speaks first and offers its key. The handshake takes one round trip; then every frame is a record, and
//! answers come in the order of the requests. In a program of your own the two tasks are two processes.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use bytes::BytesMut;
use mesh_crypto::Fingerprint;
use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_session::Config;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::KeyClaim;
use mesh_session::Local;
use mesh_session::LocalIdentity;
use mesh_session::PeerKey;
use mesh_session::PeerRefused;
use mesh_session::Responder;
use mesh_session::TokenContext;
use mesh_session::UnixTime;
use mesh_session::VerifyPeer;
use mesh_session::framing::FrameReader;
use mesh_session::framing::FrameWriter;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is called; both sides bind it into every record.
const ROUTE: &[u8] = b"POST /v1/orders";
/// More than a handshake message or a call here ever has.
const MAX_FRAME: usize = 64 * 1024;

pub(crate) fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (users, orders) = (node("user-service")?, node("order-service")?);
        let (knows_users, knows_orders) = (Pinned::on(&users), Pinned::on(&orders));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = async {
            let (stream, _) = listener.accept().await?;
            serve(Connection::new(stream)?, orders, &knows_users).await
        };
        let calling = async {
            let stream = TcpStream::connect(address).await?;
            call(Connection::new(stream)?, &users, &knows_orders).await
        };
        tokio::try_join!(serving, calling)?;
        Ok(())
    })
}

/// The side that answers. A responder serves all connections of a program; this one has only one.
async fn serve(mut connection: Connection, local: Arc<Local>, pin: &Pinned) -> Result<()> {
    let responder = Responder::new(local)?;
    connection.writer.put(responder.offer())?;
    connection.send().await?;
    let init = connection.receive().await?;
    let checked = responder.check(&init, wall_clock()?)?;
    // Private-key work takes milliseconds: a program with more to do runs it on a bounded blocking pool.
    let (reply, session) = responder.respond(&checked, b"our token", pin, wall_clock()?)?;
    let session = Arc::new(session);
    connection.writer.put(&reply)?;
    connection.send().await?;

    let mut answered = 0;
    // One turn: read what there is, answer all of it, write once.
    while connection.fill().await? {
        while let Some(mut record) = connection.reader.next_frame()? {
            let (mut sealer, opener, _) = session.accept(ROUTE, &mut record, clock())?;
            opener.finish()?;
            let answer = [b"sold: ", &record[..]].concat();
            let writer = &mut connection.writer;
            writer.seal(&mut sealer, Flags::HEAD | Flags::END, &answer)?;
            answered += 1;
        }
        connection.send().await?;
    }
    // The caller closed, and did so between two frames.
    connection.reader.finish()?;
    println!("{} had {answered} calls answered", session.peer_name());
    Ok(())
}

/// The side that calls.
async fn call(mut connection: Connection, local: &Local, pin: &Pinned) -> Result<()> {
    let offer = connection.receive().await?;
    let peer = PeerKey::from_offer(local, &offer, pin)?;
    let (initiator, init) = Initiator::start(local, &peer, b"our token", wall_clock()?)?;
    connection.writer.put(&init)?;
    connection.send().await?;
    let reply = connection.receive().await?;
    let session = Arc::new(initiator.finish(&reply, pin, wall_clock()?)?);
    println!("session {} with {}", session.id(), session.peer_name());

    let mut calls = Vec::new();
    for apples in 1..=100 {
        let (mut sealer, opener) = session.begin(ROUTE, clock())?;
        let request = format!("{apples} apples");
        let writer = &mut connection.writer;
        writer.seal(&mut sealer, Flags::HEAD | Flags::END, request.as_bytes())?;
        calls.push(opener);
    }
    connection.send().await?;
    let mut last = BytesMut::new();
    for mut opener in calls {
        last = connection.receive().await?;
        opener.open(&mut last)?;
        opener.finish()?;
    }
    println!("last answer: {}", String::from_utf8_lossy(&last));

    connection.stream.shutdown().await?;
    while connection.fill().await? {}
    Ok(connection.reader.finish()?)
}

/// A stream with the buffers of both directions.
struct Connection {
    stream: TcpStream,
    reader: FrameReader,
    writer: FrameWriter,
}

impl Connection {
    fn new(stream: TcpStream) -> Result<Self> {
        // Frames are written in batches; there is nothing to wait for.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            reader: FrameReader::new(MAX_FRAME),
            writer: FrameWriter::new(),
        })
    }

    /// Writes all frames put so far.
    async fn send(&mut self) -> Result<()> {
        Ok(self.stream.write_all_buf(self.writer.buffer()).await?)
    }

    /// Reads once; `false` at the end.
    async fn fill(&mut self) -> Result<bool> {
        Ok(self.stream.read_buf(self.reader.buffer()).await? > 0)
    }

    /// The next frame, waiting for it.
    async fn receive(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(frame) = self.reader.next_frame()? {
                return Ok(frame);
            }
            if !self.fill().await? {
                return Err("the peer closed the connection too early".into());
            }
        }
    }
}

/// Trusts one key for one name, and takes any token.
struct Pinned(String, Fingerprint);

impl Pinned {
    /// In a program of your own, name and fingerprint come from configuration.
    fn on(peer: &Local) -> Self {
        let identity = peer.identity();
        Self(
            identity.name().to_owned(),
            identity.key().public().fingerprint(),
        )
    }
}

impl VerifyPeer for Pinned {
    fn verify_key(&self, claim: &KeyClaim<'_>) -> std::result::Result<(), PeerRefused> {
        if claim.name == self.0 && claim.fingerprint == self.1 {
            Ok(())
        } else {
            Err(PeerRefused::new("the key is not the pinned one"))
        }
    }

    fn verify_token(
        &self,
        _: &str,
        _: &[u8],
        _: &TokenContext<'_>,
    ) -> std::result::Result<(), PeerRefused> {
        Ok(())
    }
}

fn node(name: &str) -> Result<Arc<Local>> {
    let key = Arc::new(RsaKeyPair::generate(&*aws_lc(), RsaBits::B2048)?);
    let identity = LocalIdentity::new(name.to_owned(), key, Vec::new());
    let random = Arc::new(SystemRandom::new());
    let local = Local::new(Config::default(), aws_lc(), random, identity)?;
    Ok(Arc::new(local))
}

/// The clock of a running session, which decides when its keys are replaced.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell of this program reads the clock here"
)]
fn wall_clock() -> Result<UnixTime> {
    Ok(UnixTime::from_secs(
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    ))
}
