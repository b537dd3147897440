//! A source of known bytes.

use std::sync::Mutex;

use mesh_crypto::Error;
use mesh_crypto::Random;

/// Gives these bytes and then fails.
#[derive(Debug)]
pub(crate) struct Fixed(Mutex<Vec<u8>>);

impl Fixed {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        let mut bytes = self.0.lock().unwrap();
        if bytes.len() < out.len() {
            return Err(Error::Random);
        }
        let rest = bytes.split_off(out.len());
        out.copy_from_slice(&bytes);
        *bytes = rest;
        Ok(())
    }
}
