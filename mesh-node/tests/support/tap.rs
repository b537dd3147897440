//! A wire between two nodes that remembers what passed.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

/// A relay on a port of its own. It ends with the test's process.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) port: u16,
    passed: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Relays every connection to `to`.
    pub(crate) fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let passed = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&passed);
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let far = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let ends = (near.try_clone().unwrap(), far.try_clone().unwrap());
                for (from, to) in [(near, far), (ends.1, ends.0)] {
                    let heard = Arc::clone(&heard);
                    thread::spawn(move || relay(from, to, &heard));
                }
            }
        });
        Self { port, passed }
    }

    /// All bytes that passed, in both directions.
    pub(crate) fn passed(&self) -> Vec<u8> {
        self.passed.lock().unwrap().clone()
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, heard: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let piece = &buffer[..len];
        heard.lock().unwrap().extend(piece);
        if to.write_all(piece).is_err() {
            break;
        }
    }
    // The other side may have gone first.
    drop(to.shutdown(Shutdown::Write));
}

/// Whether `part` stands in `bytes`.
pub(crate) fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
