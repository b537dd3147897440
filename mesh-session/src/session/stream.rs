//! The records of one exchange, in both directions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Buf as _;
use bytes::BytesMut;
use mesh_crypto::MacKey;
use mesh_crypto::aead::AeadKey;
use mesh_crypto::aead::SealingStream;

use crate::Error;
use crate::Flags;
use crate::MacCover;
use crate::Session;
use crate::record::HEADER_LEN;
use crate::record::Header;
use crate::record::MAX_PLAINTEXT;
use crate::record::TRAILER_LEN;
use crate::session::epoch::Epoch;
use crate::wire::check_len;

/// Seals the records of one direction of one exchange, in order.
///
/// It cannot be cloned; dropping it early leaves a stream that its reader sees as cut off.
#[derive(Debug)]
pub struct Sealer {
    session: Arc<Session>,
    epoch: Arc<Epoch>,
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

    pub(crate) fn new(
        session: Arc<Session>,
        (epoch, stream): (Arc<Epoch>, SealingStream),
        route: [u8; 32],
    ) -> Self {
        Self {
            session,
            epoch,
            stream,
            route,
            bytes: 0,
            records: 0,
            state: State::Open,
        }
    }

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
        self.follow()?;
        let session = &*self.session;
        let index = self.stream.next_index().or(Err(Error::Exhausted))?;
        let header = Header {
            flags: flags.bits(),
            ..session.header(
                session.role(),
                self.epoch.number,
                (self.stream.number(), index),
            )
        };
        let header = header.write();
        let aad = associated_data(&header, &self.route);
        let (room, text) = buf.split_at_mut(HEADER_LEN);
        room.copy_from_slice(&header);
        let tag = self.stream.seal(&aad, text).map_err(|error| match error {
            mesh_crypto::Error::Exhausted => Error::Exhausted,
            other => Error::Crypto(other),
        })?;
        self.bytes += u64::try_from(text.len()).unwrap_or_default();
        self.records += 1;
        self.epoch.sealed();
        buf.extend_from_slice(&tag);
        let mac = &self.epoch.sealing_mac;
        let mac = match session.suite().mac() {
            MacCover::Record => mac.sign(&[&self.route, buf]),
            MacCover::HeaderAndTag => mac.sign(&[&self.route, &header, &tag]),
        };
        buf.extend_from_slice(&mac);
        self.state = if flags.contains(Flags::END) {
            State::Ended
        } else {
            State::Open
        };
        Ok(())
    }

    /// Goes on in the newest epoch, and begins the next where this one has done its share.
    fn follow(&mut self) -> Result<(), Error> {
        let session = &*self.session;
        if self.epoch.is_spent(&session.setting.limits) {
            session.advance_from(self.epoch.number)?;
        }
        if session.newest.load(Ordering::Acquire) != self.epoch.number {
            let newest = session.newest();
            self.stream
                .continue_under(&newest.sealing)
                .map_err(Error::Crypto)?;
            self.epoch = newest;
        }
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
    epoch: Arc<Epoch>,
    route: [u8; 32],
    exchange: u64,
    next: u64,
    bytes: u64,
    state: State,
}

impl Opener {
    pub(crate) fn new(
        session: Arc<Session>,
        epoch: Arc<Epoch>,
        (exchange, route): (u64, [u8; 32]),
    ) -> Self {
        Self {
            session,
            epoch,
            route,
            exchange,
            next: 0,
            bytes: 0,
            state: State::Open,
        }
    }

    /// Opens the next record in place: `record` holds the plaintext afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if it is not the authentic next record of this stream, or if the stream ended or failed before.
    /// After an error nothing more opens, and `record` holds nothing of use.
    pub fn open(&mut self, record: &mut BytesMut) -> Result<Flags, Error> {
        let is_open = self.state == State::Open;
        self.state = State::Failed;
        let opened = u32::try_from(self.next)
            .ok()
            .filter(|_| is_open)
            .ok_or(Error::Open)
            .and_then(|index| self.open_at(index, record));
        match opened {
            Ok(flags) => Ok(flags),
            Err(_) => self.session.refuse(),
        }
    }

    fn open_at(&mut self, index: u32, record: &mut BytesMut) -> Result<Flags, Error> {
        let header = Header::of(record)?;
        let session = &*self.session;
        let expected = Header {
            flags: header.flags,
            ..session.header(session.peer_role(), header.epoch, (self.exchange, index))
        };
        // The header is public, so leaving early over it tells nothing.
        if header != expected {
            return Err(Error::Open);
        }
        let flags = header.flags()?;
        let later = if header.epoch == self.epoch.number {
            None
        } else {
            Some(session.epoch_after(&self.epoch, header.epoch)?)
        };
        let epoch = later.as_ref().unwrap_or(&self.epoch);
        authenticate(epoch, session.suite().mac(), &self.route, record)?;
        // Only now: whoever could not make the MAC must not move the session.
        session.hear(header.epoch);
        if let Some(later) = later {
            self.epoch = later;
        }
        decrypt(&self.epoch, &header, &self.route, record)?;
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

    pub(crate) fn opened(&mut self, flags: Flags, len: usize) {
        self.next += 1;
        self.bytes += u64::try_from(len).unwrap_or_default();
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
    }
}

/// Checks the MAC of a record whose header is what it should be.
pub(crate) fn authenticate(
    epoch: &Epoch,
    cover: MacCover,
    route: &[u8; 32],
    record: &[u8],
) -> Result<(), Error> {
    let (signed, mac) = record
        .split_last_chunk::<{ MacKey::TAG_LEN }>()
        .ok_or(Error::Open)?;
    let (header, rest) = signed
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(Error::Open)?;
    let (_, tag) = rest
        .split_last_chunk::<{ AeadKey::TAG_LEN }>()
        .ok_or(Error::Open)?;
    let verified = match cover {
        MacCover::Record => epoch.opening_mac.verify(&[route, signed], mac),
        MacCover::HeaderAndTag => epoch.opening_mac.verify(&[route, header, tag], mac),
    };
    verified.or(Err(Error::Open))
}

/// Decrypts a record that was authenticated; leaves the plaintext in `record`.
pub(crate) fn decrypt(
    epoch: &Epoch,
    header: &Header,
    route: &[u8; 32],
    record: &mut BytesMut,
) -> Result<(), Error> {
    let aad = associated_data(&header.write(), route);
    record.advance(HEADER_LEN);
    record.truncate(record.len().saturating_sub(MacKey::TAG_LEN));
    let (text, tag) = record
        .split_last_chunk_mut::<{ AeadKey::TAG_LEN }>()
        .ok_or(Error::Open)?;
    epoch
        .opening
        .open((header.exchange, header.index), &aad, text, tag)
        .or(Err(Error::Open))?;
    // As `mesh_crypto::aead` counts them: header and route are four blocks, the tag is one.
    epoch.opened(5 + u64::try_from(text.len().div_ceil(16)).unwrap_or_default());
    record.truncate(record.len().saturating_sub(AeadKey::TAG_LEN));
    Ok(())
}

/// What GCM binds besides the plaintext: the header, then the hash of the route.
fn associated_data(header: &[u8; HEADER_LEN], route: &[u8; 32]) -> [u8; HEADER_LEN + 32] {
    let mut out = [0; HEADER_LEN + 32];
    let (first, second) = out.split_at_mut(HEADER_LEN);
    first.copy_from_slice(header);
    second.copy_from_slice(route);
    out
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    Ended,
    Failed,
}
