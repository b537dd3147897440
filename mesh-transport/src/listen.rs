//! Accepting connections: bounded in number, never ending on an error, paused while descriptors are short.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use crate::drain::Drain;
use crate::drain::Phase;
use crate::error::Error;

/// A listening socket with a bound on the connections that it has open at once.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    slots: Arc<Semaphore>,
}

/// One accepted connection; its place among the allowed number is free again when it is dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Where it comes from.
    pub from: SocketAddr,
    /// Its place.
    pub slot: OwnedSemaphorePermit,
}

impl Listener {
    /// Listens on `address` for at most `max_connections` at a time. Port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] when the address can't be bound.
    pub fn bind(address: SocketAddr, max_connections: usize) -> Result<Self, Error> {
        let open = || {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        let socket = open().map_err(|source| Error::Listen { address, source })?;
        Ok(Self {
            socket,
            slots: Arc::new(Semaphore::new(max_connections)),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] when the system can't say.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        self.socket.local_addr().map_err(|source| Error::Listen {
            address: unknown,
            source,
        })
    }

    /// Gives every accepted connection to `serve`, until draining begins.
    pub async fn run(self, mut drain: Drain, serve: impl Fn(Accepted)) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.reached(Phase::Draining) => break,
                accepted = self.accept() => accepted,
            };
            serve(accepted);
        }
        // The system has completed these connections already; closing the socket would reset them, and lose requests.
        for _ in 0..BACKLOG {
            match tokio::time::timeout(QUEUED, self.accept()).await {
                Ok(accepted) => serve(accepted),
                Err(_) => return,
            }
        }
    }

    async fn accept(&self) -> Accepted {
        loop {
            // The semaphore is never closed, so this can only wait.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                continue;
            };
            match self.socket.accept().await {
                Ok((stream, from)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "could not switch off Nagle's algorithm");
                    }
                    return Accepted { stream, from, slot };
                }
                Err(error) => {
                    // Out of descriptors or memory: wait for some to come free rather than spin (threat 41).
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// The queue that the system keeps of connections not yet accepted; it cuts it to its own limit.
const BACKLOG: u32 = 4096;
/// A connection that is queued is there at once; the pause lets the reactor see it.
const QUEUED: Duration = Duration::from_millis(2);
/// Long enough not to spin, short enough not to be felt once descriptors are free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
