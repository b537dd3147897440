//! Sealed calls over one TCP connection: the answerer's offer first, a handshake of one round trip, then records.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Buf as _;
use bytes::BytesMut;
use mesh_session::Flags;
use mesh_session::Initiator;
use mesh_session::Opener;
use mesh_session::PeerKey;
use mesh_session::Responder;
use mesh_session::Session;
use mesh_session::framing::FrameReader;
use mesh_session::framing::FrameWriter;
use mesh_transport::BoxError;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::Interest;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::MAX_SIZE;
use super::Measured;
use super::Plan;
use super::ends::Ends;
use super::ends::unix_now;
use super::latency::Latencies;
use super::peer::Mark;
use super::peer::PeerProcess;
use super::peer::now;

/// A connection with a session on it.
struct Link {
    session: Arc<Session>,
    stream: TcpStream,
    reader: FrameReader,
    writer: FrameWriter,
}

/// Answers one connection after the other; `ready` is told where.
pub(super) async fn serve(
    ends: &Ends,
    ready: impl FnOnce(SocketAddr) -> io::Result<()>,
) -> Result<(), BoxError> {
    let responder = Responder::new(Arc::clone(&ends.local))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    ready(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let link = Link::accept(ends, &responder, stream).await?;
        match link.answer().await {
            // The caller leaves with answers underway.
            Err(error) if error.is::<io::Error>() => {}
            ended => ended?,
        }
    }
}

/// How long it takes to connect and to agree on a session.
pub(super) async fn set_up(ends: &Ends) -> Result<Duration, BoxError> {
    let begin = now();
    drop(Link::connect(ends).await?);
    Ok(now().saturating_duration_since(begin))
}

/// Keeps calls in flight and measures them.
pub(super) async fn load(
    ends: &Ends,
    peer: &mut PeerProcess,
    plan: Plan,
) -> Result<Measured, BoxError> {
    let mut link = Link::connect(ends).await?;
    let mut calls = Calls::new(plan);
    let mut begin: Option<Mark> = None;
    let mut until = now() + plan.warm;
    loop {
        let at = now();
        if at >= until {
            if let Some(begin) = begin {
                return Ok(Measured::new(calls.latencies, &begin, &peer.end()?));
            }
            let mark = peer.begin()?;
            until = mark.at + plan.measured;
            begin = Some(mark);
            calls.latencies.clear();
        }
        calls.take_answers(&mut link, at)?;
        calls.fill(&mut link, at)?;
        link.exchange().await?;
    }
}

impl Link {
    fn parts(stream: TcpStream) -> io::Result<(TcpStream, FrameReader, FrameWriter)> {
        stream.set_nodelay(true)?;
        Ok((stream, FrameReader::new(2 * MAX_SIZE), FrameWriter::new()))
    }

    async fn accept(
        ends: &Ends,
        responder: &Responder,
        stream: TcpStream,
    ) -> Result<Self, BoxError> {
        let (mut stream, mut reader, mut writer) = Self::parts(stream)?;
        writer.put(responder.offer())?;
        stream.write_all_buf(writer.buffer()).await?;
        let init = receive(&mut stream, &mut reader).await?;
        let checked = responder.check(&init, unix_now())?;
        let (reply, session) = responder.respond(&checked, b"", &*ends.pinned, unix_now())?;
        writer.put(&reply)?;
        stream.write_all_buf(writer.buffer()).await?;
        Ok(Self {
            session: Arc::new(session),
            stream,
            reader,
            writer,
        })
    }

    async fn connect(ends: &Ends) -> Result<Self, BoxError> {
        let stream = TcpStream::connect(ends.address).await?;
        let (mut stream, mut reader, mut writer) = Self::parts(stream)?;
        let offer = receive(&mut stream, &mut reader).await?;
        let peer = PeerKey::from_offer(&ends.local, &offer, &*ends.pinned)?;
        let (initiator, init) = Initiator::start(&ends.local, &peer, b"", unix_now())?;
        writer.put(&init)?;
        stream.write_all_buf(writer.buffer()).await?;
        let reply = receive(&mut stream, &mut reader).await?;
        let session = initiator.finish(&reply, &*ends.pinned, unix_now())?;
        Ok(Self {
            session: Arc::new(session),
            stream,
            reader,
            writer,
        })
    }

    /// Answers every request with its own bytes until the caller closes.
    async fn answer(mut self) -> Result<(), BoxError> {
        while self.stream.read_buf(self.reader.buffer()).await? > 0 {
            let at = now();
            while let Some(mut record) = self.reader.next_frame()? {
                let (mut sealer, opener, _) = self.session.accept(ROUTE, &mut record, at)?;
                opener.finish()?;
                self.writer
                    .seal(&mut sealer, Flags::HEAD | Flags::END, &record)?;
            }
            self.stream.write_all_buf(self.writer.buffer()).await?;
        }
        Ok(())
    }

    /// Writes and reads what can be written and read now, at least something.
    ///
    /// Neither waits for the other: were both sides only writing, with all buffers between them full, they would wait
    /// for ever.
    async fn exchange(&mut self) -> io::Result<()> {
        loop {
            if !self.writer.buffer().is_empty() {
                match self.stream.try_write(self.writer.buffer()) {
                    Ok(written) => self.writer.buffer().advance(written),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            match self.stream.try_read_buf(self.reader.buffer()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let interest = if self.writer.buffer().is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            self.stream.ready(interest).await?;
        }
    }
}

/// Calls in flight, oldest first; answers come in that order.
struct Calls {
    request: Vec<u8>,
    in_flight: VecDeque<(Opener, Instant)>,
    limit: usize,
    latencies: Latencies,
}

impl Calls {
    fn new(plan: Plan) -> Self {
        Self {
            request: vec![b'm'; plan.size],
            in_flight: VecDeque::with_capacity(plan.in_flight),
            limit: plan.in_flight,
            latencies: Latencies::new(),
        }
    }

    fn take_answers(&mut self, link: &mut Link, at: Instant) -> Result<(), BoxError> {
        while let Some(mut answer) = link.reader.next_frame()? {
            let call = self.in_flight.pop_front();
            let (mut opener, sent) = call.ok_or("an answer came that nobody asked for")?;
            opener.open(&mut answer)?;
            opener.finish()?;
            if answer.len() != self.request.len() {
                return Err("an answer is not as long as its request".into());
            }
            self.latencies.record(at.saturating_duration_since(sent));
        }
        Ok(())
    }

    fn fill(&mut self, link: &mut Link, at: Instant) -> Result<(), BoxError> {
        while self.in_flight.len() < self.limit {
            let (mut sealer, opener) = link.session.begin(ROUTE, at)?;
            link.writer
                .seal(&mut sealer, Flags::HEAD | Flags::END, &self.request)?;
            self.in_flight.push_back((opener, at));
        }
        Ok(())
    }
}

/// One message of a handshake.
async fn receive(stream: &mut TcpStream, reader: &mut FrameReader) -> Result<BytesMut, BoxError> {
    loop {
        if let Some(message) = reader.next_frame()? {
            return Ok(message);
        }
        if stream.read_buf(reader.buffer()).await? == 0 {
            return Err("the peer closed the connection during the handshake".into());
        }
    }
}

const ROUTE: &[u8] = b"answerer";
