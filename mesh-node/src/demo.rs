//! `mesh-node demo`: a small mesh on this machine, and a story whose every step is checked while it is told.
//!
//! Three plain HTTP applications and the nodes beside them run as processes of their own (`processes`, `child`,
//! `service`), from configurations in a folder that stays (`folder`, `ports`). Calls are driven through them
//! (`client`, `probe`), what passes is recorded on the way (`tap`, `hop`), and each step compares what came back with what it
//! expected (`steps`, `story`).

mod child;
mod client;
mod folder;
mod hop;
mod ports;
mod probe;
mod processes;
mod service;
mod steps;
mod story;
mod tap;
mod world;

use std::future::Future;
use std::path::PathBuf;

use mesh_transport::BoxError;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

pub(crate) use self::child::Args as ChildArgs;
pub(crate) use self::story::Story;
use self::world::World;

/// How many steps the story has.
pub(crate) const STEPS: usize = steps::TOTAL;

/// What is asked of a demonstration.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The folder; else `mesh-demo`, or the next one that is free.
    pub(crate) dir: Option<PathBuf>,
    /// Stops at the end of the story instead of waiting.
    pub(crate) is_once: bool,
    /// What to type for this program.
    pub(crate) program: String,
}

/// Tells the story, then waits for a stop signal if asked to; leaves no process behind.
///
/// # Errors
///
/// When there is no mesh to tell about: the folder can't be used, or a process did not start.
pub(crate) async fn run(options: Options, story: &mut Story) -> Result<(), BoxError> {
    let mut stop = Box::pin(stopped()?);
    let mut world = tokio::select! {
        world = World::start(&options, story) => world?,
        () = &mut stop => return Err(INTERRUPTED.into()),
    };
    let is_told = tokio::select! {
        () = steps::all(&mut world, story) => true,
        () = &mut stop => false,
    };
    if is_told && options.is_once {
        story.headline(&format!(
            "Stopping. Everything stays in {}/.",
            world.folder.display()
        ));
    } else if is_told {
        steps::farewell(&world, story);
        stop.await;
        story.headline("Stopping.");
    }
    let killed = world.processes.stop().await;
    if killed > 0 {
        let what = format!("{killed} of the processes did not stop when asked and were killed");
        return Err(what.into());
    }
    if is_told {
        Ok(())
    } else {
        Err(INTERRUPTED.into())
    }
}

/// Ready once somebody asks this process to stop.
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

const INTERRUPTED: &str = "interrupted before the story was over";
