//! A service that dies and comes back, as the node that calls it sees it.

use std::time::Duration;

use tokio::time::Instant;

use super::super::client::Answer;
use super::super::client::Call;
use super::super::folder::ORDERS;
use super::super::folder::PAYMENTS;
use super::super::ports::local;
use super::super::processes::POLL;
use super::super::story::Miss;
use super::super::story::Story;
use super::super::story::expect;
use super::super::world::World;

pub(super) async fn opens(world: &mut World, story: &mut Story) -> Result<(), Miss> {
    let killed = world.processes.kill(PAYMENTS).await;
    let killed = killed.map_err(Miss::at("the processes of payments are killed"))?;
    expect(
        killed.len() == 2,
        "application and node of payments were running",
        killed.len(),
    )?;
    let pids: Vec<String> = killed.iter().map(u32::to_string).collect();
    story.say(&format!(
        "kill -9 {}: the application and the node of payments are gone. Calls through the node of orders, which \
         tries each up to three times and opens the circuit after five failures in a row:",
        pids.join(" ")
    ));
    let mut failed = 0;
    loop {
        let answer = ask(world).await?;
        let state = answer.header(STATE);
        tell(&answer, story);
        if answer.status == 503 && answer.header("x-mesh-error") == "circuit_open" {
            let retry_after: Option<u64> = answer.header("retry-after").parse().ok();
            expect(state == "OPEN", "X-Circuit-Breaker-State: OPEN", state)?;
            expect(
                retry_after.is_some_and(|seconds| (1..=3).contains(&seconds)),
                "Retry-After of one to three seconds",
                answer.header("retry-after"),
            )?;
            story.got(&answer.sentence());
            break;
        }
        failed += 1;
        expect(
            answer.status >= 500,
            "a failure: payments is gone",
            answer.status,
        )?;
        expect(failed < MOST_FAILURES, "an open circuit by now", state)?;
    }
    expect(failed > 0, "failures before the circuit opened", failed)?;
    let started = Instant::now();
    let answer = ask(world).await?;
    let took = started.elapsed();
    story.say(&format!(
        "The next caller is told {} after {:.1} ms, and payments is spared.",
        answer.status,
        took.as_secs_f64() * 1e3
    ));
    let admin = local(world.ports.of(ORDERS).admin);
    story.look(&format!("curl http://{admin}/health/services"));
    expect(
        answer.status == 503,
        "503 while the circuit is open",
        answer.status,
    )?;
    expect(
        took < AT_ONCE,
        format!("an answer within {AT_ONCE:?}"),
        format!("one after {took:?}"),
    )
}

pub(super) async fn closes(world: &mut World, story: &mut Story) -> Result<(), Miss> {
    let started = Instant::now();
    restart(world).await?;
    let keys = std::fs::read_dir(world.folder.file(&format!("{PAYMENTS}/keys")));
    let keys = keys.map_err(Miss::at("the keys of payments"))?.count();
    expect(keys == 1, "the RSA key that was there, and no other", keys)?;
    story.say(&format!(
        "payments runs again after {:.1} s, with the RSA key that it had. The circuit stays open for 2 s; then three \
         calls in a row must succeed.",
        started.elapsed().as_secs_f64()
    ));
    let deadline = Instant::now() + OPEN_AT_MOST;
    let mut refused = 0;
    let mut answer = ask(world).await?;
    while answer.header("x-mesh-error") == "circuit_open" && Instant::now() < deadline {
        refused += 1;
        tokio::time::sleep(5 * POLL).await;
        answer = ask(world).await?;
    }
    story.say(&format!(
        "Calls that the open circuit still refused: {refused}. Then:"
    ));
    for expected in ["HALF-OPEN", "HALF-OPEN", "CLOSED"] {
        tell(&answer, story);
        expect(
            answer.status == 200 && answer.header(STATE) == expected,
            format!("200 and {STATE}: {expected}"),
            answer.summary(&[STATE, "x-mesh-error"]),
        )?;
        answer = ask(world).await?;
    }
    tell(&answer, story);
    expect(
        answer.status == 200 && answer.header(STATE) == "CLOSED",
        "200 and a closed circuit from now on",
        answer.summary(&[STATE]),
    )
}

async fn ask(world: &World) -> Result<Answer, Miss> {
    let call = Call::get("http://payments/payments/46");
    let answer = call.send(local(world.ports.of(ORDERS).outbound)).await;
    answer.map_err(Miss::at("an answer of the node of orders"))
}

/// Another program may have taken a port meanwhile, but then it is likely to give it back.
async fn restart(world: &mut World) -> Result<(), Miss> {
    let mut attempt = 1;
    loop {
        let (folder, ports) = (&world.folder, &world.ports);
        let started = world.processes.start(PAYMENTS, folder, ports);
        started.map_err(Miss::at("payments starts"))?;
        match world.processes.ready(&[PAYMENTS], ports).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt == ATTEMPTS => return Err(Miss::new("payments is ready", error)),
            Err(_) => attempt += 1,
        }
        let killed = world.processes.kill(PAYMENTS).await;
        killed.map_err(Miss::at("what is left of payments is stopped"))?;
    }
}

fn tell(answer: &Answer, story: &mut Story) {
    story.got(&answer.summary(&[STATE, "x-mesh-error", "retry-after"]));
}

const STATE: &str = "x-circuit-breaker-state";
const MOST_FAILURES: u32 = 6;
const OPEN_AT_MOST: Duration = Duration::from_secs(5);
/// No network, no wait for the circuit: a fraction of a millisecond, and room for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 3;
