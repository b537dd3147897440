//! Envelopes over `std::io`.

use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;

use zeroize::Zeroizing;

use super::CHUNK_LEN;
use super::Decryptor;
use super::Encryptor;
use crate::Error;

/// Why an envelope could not be carried from one stream to another.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The source could not be read.
    #[error("could not read what goes in")]
    Read(#[source] io::Error),
    /// The target could not be written.
    #[error("could not write what comes out")]
    Write(#[source] io::Error),
    /// The envelope could not be sealed or opened.
    #[error("could not seal or open the envelope")]
    Envelope(#[from] Error),
}

/// Seals all of `source` into `target`.
pub(super) fn encrypt(
    mut encryptor: Encryptor,
    source: &mut dyn Read,
    target: &mut dyn Write,
) -> Result<u64, StreamError> {
    let mut out = Vec::new();
    let data = pump(source, |piece| {
        out.clear();
        encryptor.push(piece, &mut out)?;
        target.write_all(&out).map_err(StreamError::Write)
    })?;
    out.clear();
    encryptor.finish(&mut out)?;
    target.write_all(&out).map_err(StreamError::Write)?;
    target.flush().map_err(StreamError::Write)?;
    Ok(data)
}

/// Opens all of `source` into `target`.
pub(super) fn decrypt(
    mut decryptor: Decryptor<'_>,
    source: &mut dyn Read,
    target: &mut dyn Write,
) -> Result<u64, StreamError> {
    let mut out = Zeroizing::new(Vec::with_capacity(2 * CHUNK_LEN));
    let mut data = 0_u64;
    pump(source, |piece| {
        out.clear();
        decryptor.push(piece, &mut out)?;
        data += count(&out);
        target.write_all(&out).map_err(StreamError::Write)
    })?;
    out.clear();
    decryptor.finish(&mut out)?;
    data += count(&out);
    target.write_all(&out).map_err(StreamError::Write)?;
    target.flush().map_err(StreamError::Write)?;
    Ok(data)
}

/// Reads `source` to its end in pieces of at most a chunk, wiped afterwards. Gives how much there was.
fn pump(
    source: &mut dyn Read,
    mut each: impl FnMut(&[u8]) -> Result<(), StreamError>,
) -> Result<u64, StreamError> {
    let mut buffer = Zeroizing::new(vec![0; CHUNK_LEN]);
    let mut total = 0_u64;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(len) => {
                let piece = buffer.get(..len).unwrap_or_default();
                total += count(piece);
                each(piece)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StreamError::Read(error)),
        }
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// A writer that seals what is written to it.
///
/// [`finish`](Self::finish) ends the envelope. Dropped without, it leaves a cut one, which opens nowhere.
pub struct EncryptWriter<W> {
    target: W,
    /// Gone once something failed: a hole must not be sealed over.
    encryptor: Option<Encryptor>,
    out: Vec<u8>,
}

impl<W: Write> EncryptWriter<W> {
    /// Seals into `target`, with an encryptor that was given no data yet.
    pub fn new(encryptor: Encryptor, target: W) -> Self {
        Self {
            target,
            encryptor: Some(encryptor),
            out: Vec::new(),
        }
    }

    /// Writes the rest of the envelope and gives back the target.
    ///
    /// # Errors
    ///
    /// What the target says, or an [`Error`] inside an [`io::Error`].
    pub fn finish(mut self) -> io::Result<W> {
        let encryptor = self.encryptor.take().ok_or_else(broken)?;
        self.out.clear();
        encryptor.finish(&mut self.out).map_err(io::Error::other)?;
        self.target.write_all(&self.out)?;
        self.target.flush()?;
        Ok(self.target)
    }
}

impl<W: Write> Write for EncryptWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut encryptor = self.encryptor.take().ok_or_else(broken)?;
        let piece = data.get(..CHUNK_LEN).unwrap_or(data);
        self.out.clear();
        encryptor
            .push(piece, &mut self.out)
            .map_err(io::Error::other)?;
        self.target.write_all(&self.out)?;
        self.encryptor = Some(encryptor);
        Ok(piece.len())
    }

    /// Flushes the target. Data of a chunk that is not full stays here: chunks are full but for the last.
    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

impl<W> fmt::Debug for EncryptWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptWriter")
            .field("encryptor", &self.encryptor)
            .finish_non_exhaustive()
    }
}

/// A reader of the data in an envelope.
///
/// What it gives was authenticated, but only when it has said end of file is it known to be all.
pub struct DecryptReader<'a, R> {
    source: R,
    /// Gone once the envelope has ended or failed.
    decryptor: Option<Decryptor<'a>>,
    opened: Zeroizing<Vec<u8>>,
    /// How much of `opened` was given out.
    given: usize,
    /// Whether the envelope ended as it should.
    ended: bool,
}

impl<'a, R: Read> DecryptReader<'a, R> {
    /// Opens what `source` gives, with a decryptor that was given nothing yet.
    pub fn new(decryptor: Decryptor<'a>, source: R) -> Self {
        Self {
            source,
            decryptor: Some(decryptor),
            opened: Zeroizing::new(Vec::with_capacity(2 * CHUNK_LEN)),
            given: 0,
            ended: false,
        }
    }

    /// Reads and opens until there is something to give, or the end.
    fn refill(&mut self) -> io::Result<()> {
        let mut buffer = Zeroizing::new(vec![0; CHUNK_LEN]);
        while self.given == self.opened.len() && !self.ended {
            let mut decryptor = self.decryptor.take().ok_or_else(broken)?;
            self.opened.clear();
            self.given = 0;
            match self.source.read(&mut buffer) {
                Ok(0) => {
                    decryptor.finish(&mut self.opened).map_err(refused)?;
                    self.ended = true;
                }
                Ok(len) => {
                    let piece = buffer.get(..len).unwrap_or_default();
                    let pushed = decryptor.push(piece, &mut self.opened);
                    if let Err(error) = pushed {
                        self.opened.clear();
                        return Err(refused(error));
                    }
                    self.decryptor = Some(decryptor);
                }
                Err(error) => {
                    // Nothing was taken: it may be tried again.
                    self.decryptor = Some(decryptor);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for DecryptReader<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.refill()?;
        let ready = self.opened.get(self.given..).unwrap_or_default();
        let len = ready.len().min(out.len());
        let (Some(ready), Some(out)) = (ready.get(..len), out.get_mut(..len)) else {
            return Ok(0);
        };
        out.copy_from_slice(ready);
        self.given += len;
        Ok(len)
    }
}

impl<R> fmt::Debug for DecryptReader<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptReader")
            .field("decryptor", &self.decryptor)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

fn refused(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn broken() -> io::Error {
    io::Error::other("the envelope failed before")
}
