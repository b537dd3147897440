//! An audit log, and a copy of it that somebody edited.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;

use super::super::folder::PAYMENTS;
use super::super::folder::PUBLIC;
use super::super::story::Miss;
use super::super::story::Story;
use super::super::story::expect;
use super::super::world::World;

pub(super) async fn shows_an_edit(world: &mut World, story: &mut Story) -> Result<(), Miss> {
    let path = world.folder.audit(PAYMENTS);
    story.say("The log of payments, as its node wrote it, through a kill -9 and a restart:");
    let (code, told) = verify(world, &path, story).await?;
    expect(code == Some(0), "the log verifies", &told)?;

    let log = std::fs::read_to_string(&path).map_err(Miss::at("the log is read"))?;
    let found = log
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains("\"verdict\":\"deny\""));
    let (index, line) = found.ok_or_else(|| Miss::new("a denied call in the log", "none"))?;
    let number = index + 1;
    let forged = line.replace("\"verdict\":\"deny\"", "\"verdict\":\"allow\"");
    let mut edited: Vec<&str> = log.lines().collect();
    if let Some(line) = edited.get_mut(index) {
        *line = &forged;
    }
    let edited = edited.join("\n") + "\n";
    let saved = world
        .folder
        .write("tampered/mesh-audit.log", edited.as_bytes(), PUBLIC);
    saved.map_err(Miss::at("the copy is written"))?;
    let copy = world.folder.file("tampered/mesh-audit.log");
    story.say(&format!(
        "In a copy (the log itself stays as it is), the call denied in step 4, line {number}, becomes an allowed \
         one: \"deny\" is replaced by \"allow\", nothing else."
    ));
    let (code, told) = verify(world, &copy, story).await?;
    expect(code == Some(1), "the copy does not verify", &told)?;
    expect(
        told.contains(&format!("line {number}")),
        format!("line {number} is named"),
        &told,
    )?;
    let (code, told) = verify(world, &path, story).await?;
    expect(code == Some(0), "the log itself still verifies", &told)
}

/// Runs `mesh-node audit verify` and tells what it prints.
async fn verify(
    world: &World,
    path: &Path,
    story: &mut Story,
) -> Result<(Option<i32>, String), Miss> {
    story.sent(&format!(
        "{} audit verify {}",
        world.program,
        path.display()
    ));
    let failed = || Miss::at::<std::io::Error>("audit verify runs");
    let mut command = Command::new(std::env::current_exe().map_err(failed())?);
    command
        .args(["audit", "verify"])
        .arg(path)
        .env_clear()
        .kill_on_drop(true);
    let ran = tokio::time::timeout(PATIENCE, command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = ran
        .map_err(Miss::at("audit verify ends"))?
        .map_err(failed())?;
    let told = [stdout, stderr].concat();
    let told = String::from_utf8_lossy(&told).trim_end().to_owned();
    let first = told.lines().next().unwrap_or_default();
    story.got(&format!(
        "exit code {}: {first}",
        status.code().unwrap_or(-1)
    ));
    Ok((status.code(), told))
}

const PATIENCE: Duration = Duration::from_secs(15);
