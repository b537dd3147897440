//! `mesh-node demo`: a mesh on this machine that shows what it does.

use std::path::PathBuf;

use super::report::Failure;
use super::report::Report;
use crate::demo;
use crate::demo::Options;
use crate::demo::Story;

/// The arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Stops at the end instead of staying up. Exit code 0 only if every step held.
    #[arg(long)]
    once: bool,
    /// Folder for certificates, configurations and logs; it stays. Default: mesh-demo, or mesh-demo-2 … if that is
    /// taken.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Tells the story on standard output; with `json` only what became of it is printed.
pub(super) fn run(args: Args, json: bool) -> Result<Report, Failure> {
    let mut story = if json {
        Story::untold(demo::STEPS)
    } else {
        Story::on_stdout(demo::STEPS)
    };
    let options = Options {
        dir: args.dir,
        is_once: args.once,
        program: program(),
    };
    // One thread: the children are told when the thread ends that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::new("could not start the async runtime", source))?;
    let ended = runtime.block_on(demo::run(options, &mut story));
    let mut report = story.report();
    let mut holds = story.holds();
    if let Err(source) = ended {
        let failure = Failure::new("the demo did not run to its end", source);
        holds = false;
        report["ok"] = false.into();
        report["error"] = failure.to_string().into();
        story.failed(&failure.to_string());
    }
    story.raw("");
    Ok(Report::new(story.verdict(), report).that_holds(holds))
}

/// A process that the demonstration starts; it ends with a signal, or because something failed.
pub(super) fn child(args: demo::ChildArgs) -> Result<Report, Failure> {
    let ended = args.run();
    ended
        .map(|()| Report::text(String::new()))
        .map_err(|source| Failure::new("a process of the demo failed", source))
}

/// This program as the person at the terminal typed it.
fn program() -> String {
    let typed = std::env::args_os().next();
    typed
        .and_then(|typed| typed.into_string().ok())
        .filter(|typed| !typed.contains(char::is_whitespace))
        .unwrap_or_else(|| "mesh-node".to_owned())
}
