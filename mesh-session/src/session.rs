//! An established session, and the exchanges that run in it.
//!
//! An exchange is a request and its response: one stream of records each way, opened by the first record of the
//! initiator. Exchanges are independent of each other; the records of one stream are in strict order.
//!
//! # Sources
//!
//! NIST SP 800-38D section 8.2.1 (deterministic nonces), RFC 4303 section 3.4.3 (replay window), RFC 9147 section 4
//! (epochs).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Buf as _;
use bytes::BytesMut;
use mesh_crypto::Engine;
use mesh_crypto::Fingerprint;
use mesh_crypto::MacKey;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::aead::SealingStream;

use crate::Error;
use crate::Flags;
use crate::Role;
use crate::SessionId;
use crate::Suite;
use crate::UnixTime;
use crate::record;
use crate::record::HEADER_LEN;
use crate::record::Header;
use crate::record::MAX_PLAINTEXT;
use crate::record::TRAILER_LEN;
use crate::schedule::FIRST_EPOCH;
use crate::schedule::SessionKeys;
use crate::wire::VERSION;
use crate::wire::check_len;

/// Keys and counters that two authenticated peers share; hold it as an `Arc`.
#[derive(Debug)]
pub struct Session {
    engine: Arc<dyn Engine>,
    keys: SessionKeys,
    role: Role,
    suite: Suite,
    peer: Peer,
    created: UnixTime,
    max_blocks: u64,
    totals: Totals,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: Box<str>,
    pub(crate) fingerprint: Fingerprint,
}

impl Session {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        keys: SessionKeys,
        (role, suite, peer): (Role, Suite, Peer),
        (created, max_blocks): (UnixTime, u64),
    ) -> Self {
        Self {
            engine,
            keys,
            role,
            suite,
            peer,
            created,
            max_blocks,
            totals: Totals::default(),
        }
    }

    /// Begins an exchange on `route`, whose bytes travel in clear beside the records and are bound to each of them.
    ///
    /// # Errors
    ///
    /// [`Error::Exhausted`] if the session has done its share, [`Error::Role`] if this is the responder's end.
    pub fn begin(self: &Arc<Self>, route: &[u8]) -> Result<(Sealer, Opener), Error> {
        if self.role != Role::Initiator {
            return Err(Error::Role);
        }
        if self.is_exhausted() {
            return Err(Error::Exhausted);
        }
        let stream = self.keys.sealing.next_stream().or(Err(Error::Exhausted))?;
        Ok(self.exchange(stream, self.engine.sha256(&[route])))
    }

    /// Accepts an exchange on `route` by opening its first record, whose plaintext is left in `first_record`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if the record is not the authentic and fresh beginning of an exchange on this route,
    /// [`Error::Role`] if this is the initiator's end.
    pub fn accept(
        self: &Arc<Self>,
        route: &[u8],
        first_record: &mut BytesMut,
    ) -> Result<(Sealer, Opener, Opened), Error> {
        if self.role != Role::Responder {
            return Err(Error::Role);
        }
        let route = self.engine.sha256(&[route]);
        let header = self.authenticate(&route, first_record, None)?;
        // Only now: whoever could not make the MAC must not use up numbers.
        let stream = self
            .keys
            .sealing
            .claim_stream(header.exchange)
            .or_else(|_| self.refuse())?;
        let flags = self.decrypt(&route, &header, first_record)?;
        let (sealer, mut opener) = self.exchange(stream, route);
        opener.opened(flags, first_record.len());
        Ok((
            sealer,
            opener,
            Opened {
                flags,
                exchange: header.exchange,
            },
        ))
    }

    /// Which session this is; the same at both ends.
    pub fn id(&self) -> SessionId {
        SessionId::from_bytes(self.keys.id)
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How records are protected.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Who is at the other end, as the verifier accepted it.
    pub fn peer_name(&self) -> &str {
        &self.peer.name
    }

    /// The RSA key that the other end proved to hold.
    pub fn peer_fingerprint(&self) -> Fingerprint {
        self.peer.fingerprint
    }

    /// When the handshake ended here.
    pub fn created(&self) -> UnixTime {
        self.created
    }

    /// Whether enough was carried, in either direction, that the next exchange belongs in a new session.
    pub fn is_exhausted(&self) -> bool {
        let opened = self.totals.opened_blocks.load(Ordering::Relaxed);
        self.keys.sealing.blocks().max(opened) >= self.max_blocks
    }

    /// What was carried so far, by exchanges whose ends here were dropped.
    pub fn counters(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            exchanges: load(&self.totals.exchanges),
            sealed_records: load(&self.totals.sealed_records),
            sealed_bytes: load(&self.totals.sealed_bytes),
            opened_records: load(&self.totals.opened_records),
            opened_bytes: load(&self.totals.opened_bytes),
            refused_records: load(&self.totals.refused_records),
        }
    }

    fn exchange(self: &Arc<Self>, stream: SealingStream, route: [u8; 32]) -> (Sealer, Opener) {
        self.totals.exchanges.fetch_add(1, Ordering::Relaxed);
        let opener = Opener {
            session: Arc::clone(self),
            route,
            exchange: stream.number(),
            next: 0,
            bytes: 0,
            blocks: 0,
            state: State::Open,
        };
        let sealer = Sealer {
            session: Arc::clone(self),
            stream,
            route,
            bytes: 0,
            records: 0,
            state: State::Open,
        };
        (sealer, opener)
    }

    /// Checks header and MAC of a record, which must be at `at`, or the first of any exchange.
    fn authenticate(
        &self,
        route: &[u8; 32],
        bytes: &[u8],
        at: Option<(u64, u32)>,
    ) -> Result<Header, Error> {
        self.check(route, bytes, at).or_else(|_| self.refuse())
    }

    fn check(
        &self,
        route: &[u8; 32],
        bytes: &[u8],
        at: Option<(u64, u32)>,
    ) -> Result<Header, Error> {
        if bytes.len() > HEADER_LEN + MAX_PLAINTEXT + TRAILER_LEN {
            return Err(Error::Open);
        }
        let (signed, mac) = bytes
            .split_last_chunk::<{ MacKey::TAG_LEN }>()
            .ok_or(Error::Open)?;
        let (header, rest) = signed
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(Error::Open)?;
        if rest.len() < AeadKey::TAG_LEN {
            return Err(Error::Open);
        }
        let header = Header::read(header);
        let (exchange, index) = at.unwrap_or((header.exchange, 0));
        let peer = match self.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        let expected = Header {
            flags: header.flags,
            ..self.header(peer, exchange, index)
        };
        // The header is public, so leaving early over it tells nothing.
        if header != expected {
            return Err(Error::Open);
        }
        header.flags()?;
        self.keys
            .opening_mac
            .verify(&[route, signed], mac)
            .or(Err(Error::Open))?;
        Ok(header)
    }

    /// Decrypts a record that was authenticated; leaves the plaintext in `record`.
    fn decrypt(
        &self,
        route: &[u8; 32],
        header: &Header,
        record: &mut BytesMut,
    ) -> Result<Flags, Error> {
        let aad = associated_data(header, route);
        record.advance(HEADER_LEN);
        record.truncate(record.len().saturating_sub(MacKey::TAG_LEN));
        let (text, tag) = record
            .split_last_chunk_mut::<{ AeadKey::TAG_LEN }>()
            .ok_or(Error::Open)?;
        if self
            .keys
            .opening
            .open((header.exchange, header.index), &aad, text, tag)
            .is_err()
        {
            return self.refuse();
        }
        record.truncate(record.len().saturating_sub(AeadKey::TAG_LEN));
        header.flags()
    }

    fn header(&self, sender: Role, exchange: u64, index: u32) -> Header {
        Header {
            version: VERSION,
            epoch: FIRST_EPOCH,
            flags: 0,
            direction: record::direction_from(sender),
            session: self.id(),
            exchange,
            index,
        }
    }

    fn refuse<T>(&self) -> Result<T, Error> {
        self.totals.refused_records.fetch_add(1, Ordering::Relaxed);
        Err(Error::Open)
    }
}

/// Seals the records of one direction of one exchange, in order.
///
/// It cannot be cloned; dropping it early leaves a stream that its reader sees as cut off.
#[derive(Debug)]
pub struct Sealer {
    session: Arc<Session>,
    stream: SealingStream,
    route: [u8; 32],
    bytes: u64,
    records: u64,
    state: State,
}

impl Sealer {
    /// Bytes that the buffer must hold before the plaintext.
    pub const HEADER_ROOM: usize = HEADER_LEN;
    /// Bytes that [`seal`](Self::seal) appends; reserve them and it does not allocate.
    pub const TRAILER_ROOM: usize = TRAILER_LEN;
    /// The most plaintext that one record carries: 16 MiB.
    pub const MAX_PLAINTEXT: usize = MAX_PLAINTEXT;

    /// Makes a record in place of `buf`, which holds [`HEADER_ROOM`](Self::HEADER_ROOM) bytes of any content and then
    /// the plaintext, perhaps empty.
    ///
    /// # Errors
    ///
    /// [`Error::HeaderRoom`] or [`Error::TooLong`] if `buf` does not fit, [`Error::Ended`] after a record with
    /// [`Flags::END`] or a failure, [`Error::Exhausted`] if a counter or the key is at its hard limit. After an error
    /// the content of `buf` must not be sent.
    pub fn seal(&mut self, flags: Flags, buf: &mut BytesMut) -> Result<(), Error> {
        if self.state != State::Open {
            return Err(Error::Ended);
        }
        if buf.len() < HEADER_LEN {
            return Err(Error::HeaderRoom {
                needed: HEADER_LEN,
                got: buf.len(),
            });
        }
        check_len("the plaintext", buf.len() - HEADER_LEN, MAX_PLAINTEXT)?;
        // Until it is done: a failure spends the index, and the reader would wait for it for ever.
        self.state = State::Failed;
        let session = &*self.session;
        let index = self.stream.next_index().or(Err(Error::Exhausted))?;
        let header = Header {
            flags: flags.bits(),
            ..session.header(session.role, self.stream.number(), index)
        };
        let aad = associated_data(&header, &self.route);
        let (room, text) = buf.split_at_mut(HEADER_LEN);
        room.copy_from_slice(&header.write());
        let tag = self.stream.seal(&aad, text).map_err(|error| match error {
            mesh_crypto::Error::Exhausted => Error::Exhausted,
            other => Error::Crypto(other),
        })?;
        self.bytes += u64::try_from(text.len()).unwrap_or_default();
        self.records += 1;
        buf.extend_from_slice(&tag);
        let mac = session.keys.sealing_mac.sign(&[&self.route, buf]);
        buf.extend_from_slice(&mac);
        self.state = if flags.contains(Flags::END) {
            State::Ended
        } else {
            State::Open
        };
        Ok(())
    }

    /// The number of the exchange, for logs.
    pub fn exchange(&self) -> u64 {
        self.stream.number()
    }

    /// Whether the last record of the stream was sealed.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The session that this belongs to.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        let totals = &self.session.totals;
        totals
            .sealed_records
            .fetch_add(self.records, Ordering::Relaxed);
        totals.sealed_bytes.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Opens the records of one direction of one exchange, in order.
#[derive(Debug)]
pub struct Opener {
    session: Arc<Session>,
    route: [u8; 32],
    exchange: u64,
    next: u64,
    bytes: u64,
    blocks: u64,
    state: State,
}

impl Opener {
    /// Opens the next record in place: `record` holds the plaintext afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if it is not the authentic next record of this stream, or if the stream ended or failed before.
    /// After an error nothing more opens, and `record` holds nothing of use.
    pub fn open(&mut self, record: &mut BytesMut) -> Result<Flags, Error> {
        let is_open = self.state == State::Open;
        self.state = State::Failed;
        let Some(index) = u32::try_from(self.next).ok().filter(|_| is_open) else {
            return self.session.refuse();
        };
        let header =
            self.session
                .authenticate(&self.route, record, Some((self.exchange, index)))?;
        let flags = self.session.decrypt(&self.route, &header, record)?;
        self.opened(flags, record.len());
        Ok(flags)
    }

    /// To be called when no more bytes come: says whether the stream was complete.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] if no record with [`Flags::END`] was opened.
    pub fn finish(&self) -> Result<(), Error> {
        if self.is_ended() {
            Ok(())
        } else {
            Err(Error::Truncated)
        }
    }

    /// Whether the last record of the stream was opened.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    fn opened(&mut self, flags: Flags, len: usize) {
        let len = u64::try_from(len).unwrap_or_default();
        self.next += 1;
        self.bytes += len;
        // As `mesh_crypto::aead` counts them: header and route are four blocks, the tag is one.
        self.blocks += 5 + len.div_ceil(16);
        self.state = if flags.contains(Flags::END) {
            State::Ended
        } else {
            State::Open
        };
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        let totals = &self.session.totals;
        totals
            .opened_records
            .fetch_add(self.next, Ordering::Relaxed);
        totals.opened_bytes.fetch_add(self.bytes, Ordering::Relaxed);
        totals
            .opened_blocks
            .fetch_add(self.blocks, Ordering::Relaxed);
    }
}

/// What the first record of an exchange said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Opened {
    /// Its flags.
    pub flags: Flags,
    /// The number of the exchange, which the session accepts once.
    pub exchange: u64,
}

/// What a session carried.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Exchanges begun or accepted.
    pub exchanges: u64,
    /// Records sealed.
    pub sealed_records: u64,
    /// Bytes of plaintext sealed.
    pub sealed_bytes: u64,
    /// Records opened.
    pub opened_records: u64,
    /// Bytes of plaintext opened.
    pub opened_bytes: u64,
    /// Records that did not open, replayed ones too.
    pub refused_records: u64,
}

#[derive(Debug, Default)]
struct Totals {
    exchanges: AtomicU64,
    sealed_records: AtomicU64,
    sealed_bytes: AtomicU64,
    opened_records: AtomicU64,
    opened_bytes: AtomicU64,
    opened_blocks: AtomicU64,
    refused_records: AtomicU64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    Ended,
    Failed,
}

/// What GCM binds besides the plaintext: the header, then the hash of the route.
fn associated_data(header: &Header, route: &[u8; 32]) -> [u8; HEADER_LEN + 32] {
    let mut out = [0; HEADER_LEN + 32];
    let (first, second) = out.split_at_mut(HEADER_LEN);
    first.copy_from_slice(&header.write());
    second.copy_from_slice(route);
    out
}
