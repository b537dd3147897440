//! A wire that can be cut, in one direction or both, while both ends believe that it is whole.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;

/// Which bytes pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    /// All.
    Both,
    /// What the client says; answers are held back.
    There,
    /// What the server says; questions are held back.
    Back,
    /// Nothing; new connections are still taken, as by a machine behind a firewall that drops.
    None,
}

/// A relay on a port of its own. It ends with the test's process.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    pub(crate) address: String,
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    flow: Mutex<Flow>,
    changed: Condvar,
    ends: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Relays every connection to `to`. Where nobody listens there, connections are taken and closed.
    pub(crate) fn start(to: u16) -> Self {
        Self::start_on("127.0.0.1", to)
    }

    /// The same at another address of this machine.
    pub(crate) fn start_on(address: &str, to: u16) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = format!("{address}:{port}");
        let wire = Arc::new(Wire {
            flow: Mutex::new(Flow::Both),
            changed: Condvar::new(),
            ends: Mutex::default(),
        });
        let shared = Arc::clone(&wire);
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                shared.join(near, far);
            }
        });
        Self {
            port,
            address,
            wire,
        }
    }

    /// Lets only this pass from now on. What is held back passes when it may again, as over a wire that is mended.
    pub(crate) fn let_pass(&self, flow: Flow) {
        *self.wire.flow.lock().unwrap() = flow;
        self.wire.changed.notify_all();
    }

    /// Closes every connection there is.
    pub(crate) fn cut(&self) {
        for end in self.wire.ends.lock().unwrap().drain(..) {
            // Either side may have gone first.
            drop(end.shutdown(Shutdown::Both));
        }
    }
}

impl Wire {
    fn join(self: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let copies = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let kept = [near.try_clone().unwrap(), far.try_clone().unwrap()];
        self.ends.lock().unwrap().extend(kept);
        for (from, to, way) in [(near, far, Flow::There), (copies.1, copies.0, Flow::Back)] {
            let wire = Arc::clone(self);
            thread::spawn(move || wire.carry(from, to, way));
        }
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, way: Flow) {
        let mut buffer = vec![0; 65_536];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            self.wait_open(way);
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        // An end is news too, which a cut wire does not carry.
        self.wait_open(way);
        drop(to.shutdown(Shutdown::Write));
    }

    fn wait_open(&self, way: Flow) {
        let mut flow = self.flow.lock().unwrap();
        while *flow != Flow::Both && *flow != way {
            flow = self.changed.wait(flow).unwrap();
        }
    }
}
