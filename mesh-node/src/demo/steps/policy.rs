//! A call that the policy denies, and its explanation.

use std::path::Path;

use mesh_auth::caller::Caller;
use mesh_auth::policy::Query;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_transport::BoxError;

use super::super::client::Call;
use super::super::folder::PAYMENTS;
use super::super::folder::WEB;
use super::super::ports::local;
use super::super::probe;
use super::super::story::Miss;
use super::super::story::Story;
use super::super::story::expect;
use super::super::world::World;
use crate::adapt::policy::compile;
use crate::adapt::policy::scope_of;
use crate::config::Environment;
use crate::config::NodeConfig;
use crate::node::wall_clock;
use crate::stack::outbound::unix_seconds;

pub(super) async fn denies(world: &mut World, story: &mut Story) -> Result<(), Miss> {
    story.say("web has a valid certificate and a valid token, but only orders may ask payments.");
    let before = world.requests(PAYMENTS).await?;
    story.sent("GET http://payments/payments/42 through web's node");
    let call = Call::get("http://payments/payments/42").with_id(ID);
    let answer = call.send(local(world.ports.of(WEB).outbound)).await;
    let answer = answer.map_err(Miss::at("an answer from the node of payments"))?;
    story.got(&answer.summary(&["x-mesh-error", "x-circuit-breaker-state"]));
    story.got(&answer.sentence());
    expect(
        answer.status == 403 && answer.header("x-mesh-error") == "denied",
        "403 and x-mesh-error: denied",
        answer.summary(&["x-mesh-error"]),
    )?;

    let found = world.recorded_request(PAYMENTS, ID).await?;
    let record = &found.record;
    story.say(&format!(
        "The node of payments recorded it on line {}: verdict {}, status {}, peer {}.",
        found.line, record["verdict"], record["status"], record["peer"]
    ));
    expect(
        record["verdict"] == "deny",
        "a record with the verdict deny",
        record,
    )?;

    let path = world.folder.file(&format!("{PAYMENTS}/mesh.yaml"));
    let (is_allowed, why) = explain(&path).map_err(Miss::at("an explanation"))?;
    story.say("Why, as the policy of payments explains it:");
    story.got(&why);
    story.look(&world.folder.shown(&format!("{PAYMENTS}/mesh.yaml")));
    expect(!is_allowed, "the policy in the file denies it too", &why)?;

    let after = world.requests(PAYMENTS).await?;
    story.say(&format!(
        "Requests that reached the application of payments meanwhile: {}.",
        after - before
    ));
    expect(
        after == before,
        "no request at the application",
        after - before,
    )
}

/// What the policy in the file at `path` says to the call, and why.
fn explain(path: &Path) -> Result<(bool, String), BoxError> {
    let config = NodeConfig::load(path, &Environment::new())?;
    let policy = compile(
        &config.policy,
        &scope_of(&config, &config.identity.trust_domain().parse()?),
    )?;
    let request = Call::get("http://payments/payments/42").into_request()?;
    let request = CanonicalRequest::new(request.into_parts().0, &Limits::default())?;
    let caller = Caller::new(Some(probe::spiffe_id(WEB)?), None);
    let now = unix_seconds(wall_clock());
    let query = Query::new(&caller, PAYMENTS, now)
        .with_port(config.service.listen.port())
        .with_request(&request);
    let explained = policy.explain(&query);
    Ok((explained.decision.is_allowed(), explained.to_string()))
}

const ID: &str = "demo-4-denied";
