//! Noticing that files have changed: the system tells, and where it does not, a look now and then.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use notify::RecommendedWatcher;
use notify::RecursiveMode;
use notify::Watcher as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) use mesh_discovery::file::FileWatch;

/// Tells when something in certain folders may have changed.
#[derive(Debug)]
pub(crate) struct Folders {
    changes: mpsc::Receiver<()>,
    told: mpsc::Sender<()>,
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
    settle: Duration,
}

impl Folders {
    /// Watches `folders`, not files: files are replaced by renaming. Where that fails, `what` is said to the log, and
    /// only the regular look of [`Self::changed`] is left.
    pub(crate) fn watch(folders: Vec<PathBuf>, what: &'static str) -> Self {
        let (told, changes) = mpsc::channel(1);
        let mut folders_seen = Self {
            changes,
            told,
            watcher: None,
            watched: Vec::new(),
            settle: SETTLE,
        };
        folders_seen.follow(folders, what);
        folders_seen
    }

    /// Watches other folders from now on.
    pub(crate) fn follow(&mut self, mut folders: Vec<PathBuf>, what: &'static str) {
        folders.sort_unstable();
        folders.dedup();
        if folders == self.watched && self.watcher.is_some() {
            return;
        }
        let told = self.told.clone();
        let tell = move |event: notify::Result<notify::Event>| {
            let is_change = event.is_ok_and(|event| !event.kind.is_access());
            if is_change {
                // One that waits already will do. Not a word of it here: a log in this folder would feed itself.
                told.try_send(()).ok();
            }
        };
        let unwatched = |error: &notify::Error| {
            tracing::warn!(%error, what, "changes are seen late: the folder can't be watched");
        };
        let watcher = notify::recommended_watcher(tell).inspect_err(unwatched);
        self.watcher = watcher.ok();
        if let Some(watcher) = &mut self.watcher {
            for folder in &folders {
                drop(
                    watcher
                        .watch(folder, RecursiveMode::NonRecursive)
                        .inspect_err(unwatched),
                );
            }
        }
        self.watched = folders;
    }

    /// Waits until something may have changed and has then been left alone for a moment, or until it is time to look all
    /// the same: then until `look` finds the same marks as a moment before.
    ///
    /// # Cancel safety
    ///
    /// A change is not lost, but may be told a second time.
    pub(crate) async fn changed(&mut self, look: impl Fn() -> Marks) {
        let wait = tokio::time::timeout(LOOK_EVERY, self.changes.recv()).await;
        if wait.is_err() {
            // Nobody tells of the pieces in which a file is written.
            let mut before = look();
            loop {
                tokio::time::sleep(self.settle).await;
                let now = look();
                if now == before {
                    return;
                }
                before = now;
            }
        }
        // Files are written in pieces, and several belong together: wait for a quiet moment, but not for ever.
        let latest = Instant::now() + self.settle * 8;
        while let Ok(Some(())) = tokio::time::timeout(self.settle, self.changes.recv()).await {
            if Instant::now() >= latest {
                return;
            }
        }
    }
}

/// What files were when they were looked at: another file, or other content, gives other marks. The default equals no
/// files' marks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Marks(Vec<Option<Mark>>);

type Mark = (u64, u64, u64, i64, i64, i64, i64);

impl Marks {
    /// Looks at `files`; links are followed.
    pub(crate) fn of(files: &[&Path]) -> Self {
        let mark = |file: &Path| {
            let found = fs::metadata(file).ok()?;
            Some((
                found.dev(),
                found.ino(),
                found.size(),
                found.mtime(),
                found.mtime_nsec(),
                found.ctime(),
                found.ctime_nsec(),
            ))
        };
        Self(files.iter().copied().map(mark).collect())
    }
}

/// The folder that a file lies in.
pub(crate) fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whoever replaces files that belong together does so within this.
const SETTLE: Duration = Duration::from_millis(250);
/// Network file systems tell nobody of changes that others made.
const LOOK_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
