//! A `GET` over HTTP/1.1, whose status line is all that counts.
//!
//! # Sources
//!
//! RFC 9112: section 3 (the request line), 3.2 (`Host`), 4 (the status line), 9.6 (`Connection: close`); RFC 9110
//! section 15.2 (interim answers).

use std::io;
use std::ops::RangeInclusive;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;

use crate::error::Error;

/// Asks for a path, and takes a status in a range for a good answer. The answer's body is not read.
#[derive(Clone, Debug)]
pub struct HttpProbe {
    request: Box<str>,
    statuses: RangeInclusive<u16>,
}

impl HttpProbe {
    /// `GET path`, where `host` is what stands in the field `Host`. Statuses 200 to 399 are good.
    ///
    /// # Errors
    ///
    /// [`Error::HealthConfig`] when the path does not begin with `/`, or either has characters that would end it.
    pub fn new(host: &str, path: &str) -> Result<Self, Error> {
        let is_plain =
            |text: &str| text.len() <= MAX_PATH && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !path.starts_with('/') || path.contains('#') || !is_plain(path) {
            let reason = "use a path such as `/health`, of at most 2048 visible ASCII characters";
            return Err(Error::HealthConfig {
                field: "path",
                reason,
            });
        }
        if host.is_empty() || !is_plain(host) {
            let reason = "use a name without blanks";
            return Err(Error::HealthConfig {
                field: "host",
                reason,
            });
        }
        let agent = concat!("mesh-discovery/", env!("CARGO_PKG_VERSION"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        Ok(Self {
            request: request.into(),
            statuses: GOOD,
        })
    }

    /// With other statuses as good ones.
    #[must_use]
    pub fn with_statuses(self, statuses: RangeInclusive<u16>) -> Self {
        Self { statuses, ..self }
    }

    /// Asks over `stream`. The caller limits the time; at most 8 KiB are read.
    ///
    /// # Errors
    ///
    /// When the stream fails, what comes is no HTTP/1 answer, or its status is not a good one.
    pub async fn ask<S>(&self, stream: &mut S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        stream.write_all(self.request.as_bytes()).await?;
        stream.flush().await?;
        let mut read = Vec::with_capacity(512);
        loop {
            while let Some((status, rest)) = head(&read)? {
                if !(100..200).contains(&status) || self.statuses.contains(&status) {
                    return self.judge(status);
                }
                read.drain(..read.len().saturating_sub(rest));
            }
            if read.len() >= MAX_HEAD {
                return Err(invalid("the answer's head is longer than 8 KiB"));
            }
            let room = u64::try_from(MAX_HEAD - read.len()).unwrap_or_default();
            if (&mut *stream).take(room).read_buf(&mut read).await? == 0 {
                return Err(invalid("the answer ended before its head did"));
            }
        }
    }

    fn judge(&self, status: u16) -> io::Result<()> {
        if self.statuses.contains(&status) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "status {status}, and not one from {} to {}",
            self.statuses.start(),
            self.statuses.end()
        )))
    }
}

/// The status of a whole head, and how many bytes follow it; `None` while it is not whole.
fn head(read: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let (expected, begin) = (b"HTTP/1.", read.iter().take(7));
    if !begin.eq(expected.iter().take(read.len())) {
        return Err(invalid("the answer is not HTTP/1"));
    }
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    // `HTTP/1.1 200 OK`: the status is between the first blank and the next, or the end of the line.
    let status = read
        .get(8..13)
        .and_then(|field| match field {
            [b' ', digits @ .., b' ' | b'\r'] => std::str::from_utf8(digits).ok(),
            _ => None,
        })
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| invalid("the answer's status line can't be read"))?;
    Ok(Some((status, read.len() - end - 4)))
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Redirections are answers of a server that works; Consul's HTTP checks take 2xx only, Kubernetes' these.
const GOOD: RangeInclusive<u16> = 200..=399;
const MAX_PATH: usize = 2048;
const MAX_HEAD: usize = 8 * 1024;
