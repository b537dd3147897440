//! What can be read between two nodes: on the wire, and inside TLS.

use mesh_transport::tls::PeerId;

use super::super::client::Answer;
use super::super::client::Call;
use super::super::folder::ORDERS;
use super::super::folder::PUBLIC;
use super::super::folder::WEB;
use super::super::folder::random_hex;
use super::super::hop::Hop;
use super::super::hop::Seen;
use super::super::hop::StolenKeys;
use super::super::ports::local;
use super::super::probe;
use super::super::probe::Probe;
use super::super::probe::Speaker;
use super::super::story::Miss;
use super::super::story::Story;
use super::super::story::expect;
use super::super::tap::Recording;
use super::super::tap::count;
use super::super::tap::hex_dump;
use super::super::world::World;

pub(super) async fn is_ciphertext(world: &mut World, story: &mut Story) -> Result<(), Miss> {
    let marker = marker()?;
    story.say(
        "One recorder sits on the wire between the nodes of web and orders; one sits behind, between the node of \
         orders and its application. A word that occurs nowhere else goes there in the body and comes back in it.",
    );
    let body = format!("please gift-wrap, {marker}");
    story.sent(&format!(
        "POST http://orders/orders/43 with the body \"{body}\""
    ));
    let call = Call::new(http::Method::POST, "http://orders/orders/43").with_body(&body);
    let answer = call.send(local(world.ports.of(WEB).outbound)).await;
    let answer = answer.map_err(Miss::at("an answer from orders"))?;
    came_back(&answer, &marker, story)?;

    let (behind, wire) = (world.app.recording(), world.wire.recording());
    table(
        story,
        &marker,
        &[
            ("behind the node, to the application", behind),
            ("on the wire, since the nodes started", wire),
        ],
    );
    story.say("The last bytes that web's node put on the wire:");
    for line in hex_dump(&wire.last_there(SHOWN_BYTES)) {
        story.raw(&line);
    }
    let saved = world
        .folder
        .write("wire/web-to-orders.bin", &wire.all(), PUBLIC);
    saved.map_err(Miss::at("the recording is saved"))?;
    story.look(&format!(
        "grep -c {marker} {}",
        world.folder.shown("wire/web-to-orders.bin")
    ));
    expect(
        behind.count(&marker) == 2,
        "the application got the word once and gave it back once",
        format!("{} times", behind.count(&marker)),
    )?;
    hidden(wire, &marker)
}

pub(super) async fn is_sealed_inside(world: &mut World, story: &mut Story) -> Result<(), Miss> {
    let marker = marker()?;
    story.say(
        "Now suppose that somebody stole the TLS keys of both nodes and sits between them: it ends TLS and HTTP/2 as \
         orders, reads everything, and begins both anew as web. The call comes from the code that nodes call with.",
    );
    let failed = || Miss::at("the stolen keys are read");
    let keys = StolenKeys {
        called: probe::identity(&world.folder, ORDERS).map_err(failed())?,
        calling: probe::identity(&world.folder, WEB).map_err(failed())?,
        name: PeerId::new(probe::spiffe_id(ORDERS).map_err(failed())?.to_string()),
    };
    let destination = local(world.ports.of(ORDERS).inbound);
    let hop = Hop::start(destination, keys, &world.tasks).await;
    let hop = hop.map_err(Miss::at("the hop listens"))?;

    let speaker = Speaker {
        folder: &world.folder,
        caller: WEB,
        service: ORDERS,
        secret: &world.secret,
    };
    let caller = Probe::new(&speaker, hop.address).map_err(Miss::at("a caller is made"))?;
    let token = probe::token(WEB, ORDERS, &world.secret).map_err(Miss::at("a token is made"))?;
    let body = format!("please gift-wrap, {marker}");
    story.sent(&format!(
        "POST http://orders/orders/44 with the body \"{body}\""
    ));
    let call = Call::new(http::Method::POST, "http://orders/orders/44").with_body(&body);
    let answer = caller.call(call, &token).await;
    let answer = answer.map_err(Miss::at("an answer from orders"))?;
    came_back(&answer, &marker, story)?;

    let seen = hop.seen();
    let last = seen
        .last()
        .ok_or_else(|| Miss::new("a call through the hop", "none"))?;
    let (requests, answers) = (last.request.len(), last.answer.len());
    story.say("What the hop could read of it, after the two messages of a handshake:");
    story.sent(&format!("{}, and {requests} bytes", last.head));
    story.got(&format!("{}, and {answers} bytes", last.answer_head));
    story.say("The last of the request's bytes:");
    let shown = requests.saturating_sub(SHOWN_BYTES);
    for line in hex_dump(last.request.get(shown..).unwrap_or_default()) {
        story.raw(&line);
    }
    let all: Vec<u8> = seen.iter().flat_map(Seen::all).collect();
    story.say(&format!(
        "The word stands in it {} times, the path /orders/44 {} times, the caller's token {} times: they are sealed \
         under keys that only the two ends have. What the hop learns is the called service, sizes and times.",
        count(&all, marker.as_bytes()),
        count(&all, b"/orders/44"),
        count(&all, token.as_bytes())
    ));
    let saved = world.folder.write("wire/inside-tls.bin", &all, PUBLIC);
    saved.map_err(Miss::at("the recording is saved"))?;
    story.look(&format!(
        "grep -c {marker} {}",
        world.folder.shown("wire/inside-tls.bin")
    ));
    expect(
        last.head.contains("mesh-service: orders") && requests > body.len(),
        "a call of orders with a body in what the hop read",
        &last.head,
    )?;
    for (what, text) in [
        ("the word", marker.as_str()),
        ("the path", "/orders/44"),
        ("the token", &token),
    ] {
        let found = count(&all, text.as_bytes());
        expect(
            found == 0,
            format!("{what} nowhere in what the hop read"),
            found,
        )?;
    }
    Ok(())
}

fn came_back(answer: &Answer, marker: &str, story: &mut Story) -> Result<(), Miss> {
    let received = answer.json()["received"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    story.got(&format!(
        "{}: orders received \"{received}\"",
        answer.status
    ));
    expect(
        answer.status == 200 && received.contains(marker),
        "200, with the word in the body",
        answer.text(),
    )
}

fn hidden(recording: &Recording, marker: &str) -> Result<(), Miss> {
    let found = recording.count(marker);
    expect(
        found == 0,
        "the word nowhere in the recording",
        format!("{found} times"),
    )?;
    expect(
        recording.len() > 1000 && recording.is_whole(),
        "a recording of all that passed",
        format!("{} bytes", recording.len()),
    )
}

fn table(story: &mut Story, marker: &str, rows: &[(&str, &Recording)]) {
    for (place, recording) in rows {
        story.raw(&format!(
            "{place:<38} {:>7} bytes recorded, the word in them: {}",
            recording.len(),
            recording.count(marker)
        ));
    }
}

/// A word that nothing else contains.
fn marker() -> Result<String, Miss> {
    let random = random_hex(6).map_err(Miss::at("random bytes"))?;
    Ok(format!("marker-{}", *random))
}

const SHOWN_BYTES: usize = 64;
