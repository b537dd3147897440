//! A call that passes all three services.

use serde_json::Value;
use tokio::time::Instant;

use super::super::client::Call;
use super::super::folder::ORDERS;
use super::super::folder::PAYMENTS;
use super::super::folder::WEB;
use super::super::ports::local;
use super::super::story::Miss;
use super::super::story::Story;
use super::super::story::expect;
use super::super::world::World;

pub(super) async fn passes_three_services(
    world: &mut World,
    story: &mut Story,
) -> Result<(), Miss> {
    let address = local(world.ports.of(WEB).app);
    story.say(
        "A customer asks web. web asks http://orders, orders asks http://payments: plain HTTP, each through the \
         node beside it.",
    );
    story.sent(&format!("GET http://{address}/basket/42"));
    let started = Instant::now();
    let answer = Call::get("/basket/42").with_id(ID).send(address).await;
    let answer = answer.map_err(Miss::at("an answer from web"))?;
    let millis = started.elapsed().as_millis();
    story.got(&format!(
        "{} after {millis} ms; in the body:",
        answer.status
    ));

    let web = answer.json();
    let orders = &web["asked"]["answer"];
    let payments = &orders["asked"]["answer"];
    for told in [&web, orders, payments] {
        tell(told, story);
    }
    expect(answer.status == 200, "200", answer.text())?;
    for (told, service) in [(&web, WEB), (orders, ORDERS), (payments, PAYMENTS)] {
        expect(
            told["service"] == service,
            format!("an answer of {service}"),
            told,
        )?;
    }
    for (told, caller) in [
        (orders, "spiffe://shop.example/web"),
        (payments, "spiffe://shop.example/orders"),
    ] {
        expect(
            told["calledBy"] == caller,
            format!("the node names the caller {caller}"),
            &told["calledBy"],
        )?;
    }
    for asked in [&web["asked"], &orders["asked"]] {
        expect(
            asked["circuitBreaker"] == "CLOSED",
            "X-Circuit-Breaker-State: CLOSED",
            asked,
        )?;
    }

    let mut lines = Vec::new();
    for service in [ORDERS, PAYMENTS] {
        let found = world.recorded_request(service, ID).await?;
        let record = &found.record;
        expect(
            record["verdict"] == "allow" && record["session"].is_string(),
            "a record that it was allowed, and in which session it came",
            record,
        )?;
        lines.push(format!("{service} line {}", found.line));
    }
    story.say(&format!(
        "Both called nodes proved the caller, allowed the call and recorded it: {}.",
        lines.join(", ")
    ));
    story.look(&format!(
        "grep {ID} {}/*/logs/mesh-audit.log",
        world.folder.display()
    ));
    Ok(())
}

/// What one application said: who called it, and what it asked.
fn tell(told: &Value, story: &mut Story) {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let caller = told["calledBy"].as_str().unwrap_or("the customer");
    story.raw(&format!("{:<9} called by {caller}", text(&told["service"])));
    let asked = &told["asked"];
    if asked.is_object() {
        story.raw(&format!(
            "{:<9} asked {}: {} · x-circuit-breaker-state: {}",
            "",
            text(&asked["url"]),
            asked["status"],
            text(&asked["circuitBreaker"])
        ));
    }
}

const ID: &str = "demo-1-call";
