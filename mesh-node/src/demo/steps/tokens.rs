//! Tokens that are not what they should be.

use super::super::client::Call;
use super::super::folder::ORDERS;
use super::super::folder::PAYMENTS;
use super::super::folder::WEB;
use super::super::folder::random_hex;
use super::super::ports::local;
use super::super::probe;
use super::super::probe::Probe;
use super::super::probe::Speaker;
use super::super::story::Miss;
use super::super::story::Story;
use super::super::story::expect;
use super::super::world::World;

pub(super) async fn are_refused(world: &mut World, story: &mut Story) -> Result<(), Miss> {
    let address = local(world.ports.of(ORDERS).inbound);
    story.say(
        "A thief has web's certificate and RSA key and talks to the node of orders over mutual TLS, in a sealed \
         session. First, that this works at all, with a real token:",
    );
    let before = world.requests(ORDERS).await?;
    let thief = Probe::new(&speaker(world, &world.secret), address);
    let thief = thief.map_err(Miss::at("a caller with web's certificate and key"))?;
    let genuine = token(WEB, ORDERS, &world.secret)?;
    let answer = thief.call(call(), &genuine).await;
    let answer = answer.map_err(Miss::at("200 with a real token"))?;
    story.got(&answer.summary(&["x-mesh-error"]));
    expect(answer.status == 200, "200 with a real token", answer.text())?;
    let taken = world.requests(ORDERS).await?;
    expect(
        taken == before + 1,
        "one request at the application",
        taken - before,
    )?;

    let forged = [
        ("the same token, one byte of it changed", edited(&genuine)?),
        (
            "web's token for payments, shown to orders",
            token(WEB, PAYMENTS, &world.secret)?,
        ),
        (
            "a token that names orders itself as the caller",
            token(ORDERS, ORDERS, &world.secret)?,
        ),
    ];
    for (what, token) in &forged {
        story.sent(&format!("GET http://orders/orders/45 with {what}"));
        let answer = thief.call(call(), token).await;
        let answer = answer.map_err(Miss::at("a refusal"))?;
        let why = probe::objection(token, (WEB, ORDERS), &world.secret);
        let why = why.map_err(Miss::at("the token is examined"))?;
        let why = why.ok_or_else(|| Miss::new("an objection to it", "none"))?;
        story.got(&format!("{}: {why}", answer.summary(&["x-mesh-error"])));
        expect(
            !answer.text().contains(&why),
            "a forger is not told why",
            answer.text(),
        )?;
        expect(
            answer.status == 401 && answer.header("x-mesh-error") == "unauthenticated",
            "401 and x-mesh-error: unauthenticated",
            answer.summary(&["x-mesh-error"]),
        )?;
    }

    without_secret(world, story).await?;

    let after = world.requests(ORDERS).await?;
    story.say(&format!(
        "Requests that reached the application of orders with a forged token: {}. The reasons above are for this \
         story; the node tells a forger none, and writes them to its own log.",
        after - taken
    ));
    story.look(&format!(
        "grep refused {}",
        world.folder.shown("orders/logs/node.log")
    ));
    expect(
        after == taken,
        "no request at the application",
        after - taken,
    )
}

/// A thief who has certificate and key, but not the secret of the tokens, gets no session at all.
async fn without_secret(world: &World, story: &mut Story) -> Result<(), Miss> {
    let address = local(world.ports.of(ORDERS).inbound);
    let guessed = random_hex(32).map_err(Miss::at("random bytes"))?;
    story.sent("a handshake by a thief who has certificate and key, but not the token secret");
    let poor = Probe::new(&speaker(world, &guessed), address);
    let poor = poor.map_err(Miss::at("a caller without the secret"))?;
    let forged = token(WEB, ORDERS, &guessed)?;
    let refused = poor.call(call(), &forged).await;
    let why = match refused {
        Ok(answer) => return Err(Miss::new("no session", answer.text())),
        Err(why) => why,
    };
    story.got(&why);
    expect(
        why.contains("unauthenticated"),
        "the session is refused: unauthenticated",
        &why,
    )
}

fn speaker<'a>(world: &'a World, secret: &'a str) -> Speaker<'a> {
    Speaker {
        folder: &world.folder,
        caller: WEB,
        service: ORDERS,
        secret,
    }
}

fn call() -> Call {
    Call::get("http://orders/orders/45")
}

fn token(caller: &str, service: &str, secret: &str) -> Result<String, Miss> {
    probe::token(caller, service, secret).map_err(Miss::at("a token is made"))
}

/// The token with one byte in the middle of its claims changed to another letter.
fn edited(token: &str) -> Result<String, Miss> {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let claims = parts.get_mut(1).ok_or_else(|| Miss::new("a JWT", token))?;
    let middle = claims.len() / 2;
    let changed: String = claims
        .chars()
        .enumerate()
        .map(|(index, letter)| match letter {
            'A' if index == middle => 'B',
            _ if index == middle => 'A',
            _ => letter,
        })
        .collect();
    *claims = changed;
    Ok(parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_token_differs_in_one_byte() {
        for token in ["aaaa.bbAbb.cccc", "aaaa.bbbbb.cccc"] {
            let edited = edited(token).unwrap();
            let differing = token
                .bytes()
                .zip(edited.bytes())
                .filter(|(one, other)| one != other);
            assert_eq!((differing.count(), token.len()), (1, edited.len()));
        }
    }
}
