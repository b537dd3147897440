//! The steps, in order. Each is a function that drives calls, tells what it sees, and gives an error where that is not
//! what it expected; later steps run all the same.

mod audit;
mod breaker;
mod call;
mod policy;
mod strangers;
mod tokens;
mod wire;

use super::folder::ORDERS;
use super::folder::PAYMENTS;
use super::folder::WEB;
use super::ports::local;
use super::story::Story;
use super::world::World;

/// How many there are.
pub(super) const TOTAL: usize = 9;

/// Takes all steps.
pub(super) async fn all(world: &mut World, story: &mut Story) {
    story.step("A call passes three services");
    let outcome = call::passes_three_services(world, story).await;
    story.end(outcome);

    story.step("On the wire there is only ciphertext");
    let outcome = wire::is_ciphertext(world, story).await;
    story.end(outcome);

    story.step("Inside TLS the message is sealed a second time");
    let outcome = wire::is_sealed_inside(world, story).await;
    story.end(outcome);

    story.step("What no rule allows is denied, and whoever runs the service can say why");
    let outcome = policy::denies(world, story).await;
    story.end(outcome);

    story.step("Forged tokens are refused, even with stolen certificate and keys");
    let outcome = tokens::are_refused(world, story).await;
    story.end(outcome);

    story.step("Strangers do not get past the TLS handshake");
    let outcome = strangers::are_refused(world, story).await;
    story.end(outcome);

    story.step("A service dies: the circuit opens, and callers are told at once");
    let outcome = breaker::opens(world, story).await;
    story.end(outcome);

    story.step("It comes back: the circuit tries carefully, then closes");
    let outcome = breaker::closes(world, story).await;
    story.end(outcome);

    story.step("An edited audit log gives itself away");
    let outcome = audit::shows_an_edit(world, story).await;
    story.end(outcome);
}

/// What to try while the mesh stays up.
pub(super) fn farewell(world: &World, story: &mut Story) {
    let (held, total) = story.score();
    story.headline(&format!(
        "{held} of {total} steps held. The mesh stays up; try it yourself in another terminal."
    ));
    let web = world.ports.of(WEB);
    let admin = |service| local(world.ports.of(service).admin);
    let program = &world.program;
    let tries = [
        (
            "a call through all three",
            format!("curl -i http://{}/basket/7", local(web.app)),
        ),
        (
            "a call through web's node",
            world.curl(WEB, "http://orders/orders/7"),
        ),
        (
            "a denied call",
            world.curl(WEB, "http://payments/payments/7"),
        ),
        (
            "a service that is not there",
            world.curl(WEB, "http://nobody/"),
        ),
        (
            "what a node counts",
            format!("curl http://{}/stats", admin(ORDERS)),
        ),
        (
            "the same for Prometheus",
            format!("curl http://{}/metrics", admin(ORDERS)),
        ),
        (
            "its circuit breakers",
            format!("curl http://{}/health/services", admin(ORDERS)),
        ),
        (
            "its configuration",
            format!("curl http://{}/config", admin(ORDERS)),
        ),
        (
            "its audit log",
            format!(
                "{program} audit verify {}",
                world.folder.audit(ORDERS).display()
            ),
        ),
        (
            "web's certificate alone does not do: no sealed session",
            format!(
                "curl -i --cacert {} --cert {} \\\n        --key {} https://{}/payments/7",
                world.folder.shown("ca/ca.crt"),
                world.folder.shown("web/certs/web.crt"),
                world.folder.shown("web/certs/web.key"),
                local(world.ports.of(PAYMENTS).inbound)
            ),
        ),
    ];
    for (what, command) in tries {
        story.raw(&format!("# {what}"));
        story.raw(&command);
    }
    story.raw("");
    story.say(&format!(
        "Everything is in {}/. Ctrl-C stops all processes.",
        world.folder.display()
    ));
}
