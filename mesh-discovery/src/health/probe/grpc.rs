//! `grpc.health.v1.Health/Check`.
//!
//! # Sources
//!
//! gRPC health checking protocol (`grpc/doc/health-checking.md` and `health.proto`); gRPC over HTTP/2
//! (`PROTOCOL-HTTP2.md`: framing, `grpc-status` in trailers or, where there is no message, in the head); Protocol Buffers
//! encoding (varints, length-delimited fields).

use std::io;

use bytes::Buf as _;
use bytes::BufMut as _;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::header;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use crate::error::Error;

/// Asks a gRPC server whether a service of it is being served.
#[derive(Clone, Debug)]
pub struct GrpcProbe {
    authority: HeaderValue,
    message: Bytes,
}

impl GrpcProbe {
    /// The method's path.
    pub const PATH: &'static str = "/grpc.health.v1.Health/Check";

    /// Asks for `service`, or for the server as a whole where it is empty; `authority` is what the request is addressed to.
    ///
    /// # Errors
    ///
    /// [`Error::HealthConfig`] when either is too long or the authority has characters that an authority has not.
    pub fn new(authority: &str, service: &str) -> Result<Self, Error> {
        if service.len() > MAX_SERVICE {
            let reason = "use a name of at most 100 bytes";
            return Err(Error::HealthConfig {
                field: "service",
                reason,
            });
        }
        let authority = authority
            .parse::<http::uri::Authority>()
            .ok()
            .and_then(|authority| HeaderValue::try_from(authority.as_str()).ok())
            .ok_or(Error::HealthConfig {
                field: "authority",
                reason: "use a host name, with or without a port",
            })?;
        Ok(Self {
            authority,
            message: message(service),
        })
    }

    /// The request's body: one gRPC frame.
    pub fn message(&self) -> Bytes {
        self.message.clone()
    }

    /// Judges what came back: the answer's body, and `grpc-status` of its trailers or head.
    ///
    /// # Errors
    ///
    /// When it does not say that the service is being served.
    pub fn judge(body: &[u8], fields: &HeaderMap) -> io::Result<()> {
        let status = fields
            .get(GRPC_STATUS)
            .and_then(|status| status.to_str().ok());
        match status {
            Some("0") => {}
            Some("5") => return Err(failed("it knows no such service")),
            Some("7") => return Err(failed("it denies the check; allow it there")),
            Some("12") => return Err(failed("it has no health service (grpc.health.v1)")),
            Some(status) => {
                let shown: String = status.chars().take(3).collect();
                return Err(failed(&format!("grpc-status {shown}")));
            }
            None => return Err(failed("the answer has no grpc-status")),
        }
        match serving_status(body) {
            Some(SERVING) => Ok(()),
            Some(NOT_SERVING) => Err(failed("it says NOT_SERVING")),
            Some(SERVICE_UNKNOWN) => Err(failed("it says SERVICE_UNKNOWN")),
            Some(_) => Err(failed("it says UNKNOWN")),
            None => Err(failed("its answer can't be read")),
        }
    }

    /// Asks over `stream`, which must be at the beginning of an HTTP/2 connection. The caller limits the time; at most
    /// 1 KiB of an answer is read.
    ///
    /// # Errors
    ///
    /// When the stream fails, what comes is no gRPC answer, or it does not say that the service is being served.
    pub async fn ask<S>(&self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .max_header_list_size(MAX_FIELDS)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        tokio::select! {
            outcome = self.exchange(sender) => outcome,
            ended = connection => Err(match ended {
                Ok(()) => failed("the connection ended before an answer came"),
                Err(error) => io::Error::other(error),
            }),
        }
    }

    async fn exchange(&self, sender: h2::client::SendRequest<Bytes>) -> io::Result<()> {
        let mut sender = sender.ready().await.map_err(io::Error::other)?;
        let authority = self.authority.to_str().unwrap_or_default();
        let request = Request::post(format!("http://{authority}{}", Self::PATH))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())
            .map_err(io::Error::other)?;
        let (response, mut body) = sender
            .send_request(request, false)
            .map_err(io::Error::other)?;
        body.send_data(self.message(), true)
            .map_err(io::Error::other)?;
        let (head, mut body) = response.await.map_err(io::Error::other)?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(failed(&format!("status {}", head.status.as_u16())));
        }
        let mut read = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(io::Error::other)?;
            if read.len() + data.len() > MAX_ANSWER {
                return Err(failed("its answer is longer than 1 KiB"));
            }
            read.put(data);
        }
        let trailers = body.trailers().await.map_err(io::Error::other)?;
        Self::judge(&read, trailers.as_ref().unwrap_or(&head.headers))
    }
}

/// `HealthCheckRequest`: field 1, the service's name, in a frame of gRPC.
fn message(service: &str) -> Bytes {
    let length = u8::try_from(service.len()).unwrap_or_default();
    let mut frame = BytesMut::new();
    // Not compressed; the length of what follows.
    frame.put_u8(0);
    if length == 0 {
        frame.put_u32(0);
    } else {
        frame.put_u32(u32::from(length) + 2);
        frame.put_u8(1 << 3 | LENGTH_DELIMITED);
        frame.put_u8(length);
        frame.put(service.as_bytes());
    }
    frame.freeze()
}

/// `HealthCheckResponse`: field 1, a varint; the last one counts, and none means 0. `None` where it can't be read.
fn serving_status(mut frame: &[u8]) -> Option<u64> {
    if frame.len() < 5 || frame.get_u8() != 0 {
        return None;
    }
    let length = usize::try_from(frame.get_u32()).ok()?;
    if frame.len() != length {
        return None;
    }
    let mut status = 0;
    while !frame.is_empty() {
        let tag = varint(&mut frame)?;
        let value = match u8::try_from(tag & 7).ok()? {
            0 => varint(&mut frame)?,
            LENGTH_DELIMITED => {
                let length = usize::try_from(varint(&mut frame)?).ok()?;
                frame = frame.get(length..)?;
                continue;
            }
            _ => return None,
        };
        if tag >> 3 == 1 {
            status = value;
        }
    }
    Some(status)
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = from.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn failed(message: &str) -> io::Error {
    io::Error::other(message)
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const LENGTH_DELIMITED: u8 = 2;
const SERVING: u64 = 1;
const NOT_SERVING: u64 = 2;
const SERVICE_UNKNOWN: u64 = 3;
/// So that its length is one byte.
const MAX_SERVICE: usize = 100;
/// The answer is 7 bytes.
const MAX_ANSWER: usize = 1024;
const WINDOW: u32 = 16 * 1024;
const MAX_FIELDS: u32 = 16 * 1024;
