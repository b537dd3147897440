//! Encrypts a file to a file, and back: `cargo run -p mesh-crypto --example envelope`.
//!
//! The sender has its key and the recipient's public one, the recipient the other way round. Memory stays the same
//! whatever the size of the file.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs;
use std::fs::File;
use std::io::Read as _;

use mesh_crypto::RsaBits;
use mesh_crypto::RsaKeyPair;
use mesh_crypto::SystemRandom;
use mesh_crypto::engine::aws_lc;
use mesh_crypto::envelope;
use mesh_crypto::envelope::Envelope;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let [plain, sealed, opened] =
        ["plain", "sealed", "opened"].map(|name| folder.path().join(name));
    fs::write(&plain, "one line of a long report\n".repeat(100_000))?;

    // Keys live in a `KeyStore`; these are made here to be short.
    let (engine, random) = (aws_lc(), SystemRandom::new());
    let sender = RsaKeyPair::generate(&*engine, RsaBits::B3072)?;
    let recipient = RsaKeyPair::generate(&*engine, RsaBits::B3072)?;

    // Both sides know which report it is: it opens as no other, and whoever remembers the name opens it once.
    let envelope = Envelope::new(&*engine, &random).with_aad(b"report 2026-11");
    let len = envelope.encrypt_stream(
        &mut File::open(&plain)?,
        &mut File::create(&sealed)?,
        recipient.public(),
        &sender,
    )?;
    println!("sealed {len} bytes in {}", fs::metadata(&sealed)?.len());

    // Who is it from? That is a claim until it is opened with the sender's key.
    let mut start = [0; envelope::PEEK_LEN];
    File::open(&sealed)?.read_exact(&mut start)?;
    println!("it says that it is from {}", envelope::peek(&start)?.sender);

    // Into another file: it counts only when this returns without an error.
    let len = envelope.decrypt_stream(
        &mut File::open(&sealed)?,
        &mut File::create(&opened)?,
        &recipient,
        sender.public(),
    )?;
    println!("opened {len} bytes, from whom it says");

    let another = envelope.with_aad(b"report 2026-12");
    let refused = another.decrypt(&fs::read(&sealed)?, &recipient, sender.public());
    println!("as another report: {}", refused.err().ok_or("it opened")?);
    if fs::read(&plain)? == fs::read(&opened)? {
        Ok(())
    } else {
        Err("what was opened is not what was sealed".into())
    }
}
