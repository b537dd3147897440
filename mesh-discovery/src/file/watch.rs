//! Waiting until files change, however they are changed: written over, renamed into place, or behind a link that is
//! pointed elsewhere, as Kubernetes does.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use notify::RecursiveMode;
use notify::Watcher;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Watches the folders of files, and of the links on the way to them.
pub struct FileWatch {
    files: Vec<PathBuf>,
    /// All that is in these counts.
    folders: Vec<PathBuf>,
    watched: BTreeSet<PathBuf>,
    /// The names in those folders that matter; others, such as those of logs, may change all the time.
    names: Arc<Mutex<BTreeSet<OsString>>>,
    watcher: Option<notify::RecommendedWatcher>,
    changes: mpsc::Receiver<()>,
    /// Ours, so that the receiver never finds the channel closed.
    _told: mpsc::Sender<()>,
    settle: Duration,
    /// Something changed, and nobody was told.
    is_due: bool,
}

impl FileWatch {
    /// Begins to watch `files`, and all that is in `folders`; neither need be there yet. Where the system can't watch, a
    /// line in the log says so.
    pub fn new(files: Vec<PathBuf>, folders: Vec<PathBuf>) -> Self {
        let (told, changes) = mpsc::channel(1);
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let (tell, wanted, whole) = (told.clone(), Arc::clone(&names), folders.clone());
        let on_event = move |event: notify::Result<notify::Event>| {
            let is_wanted = |path: &PathBuf| {
                let name = path.file_name();
                name.is_none_or(|name| locked(&wanted).contains(name))
                    || path
                        .parent()
                        .is_some_and(|folder| whole.iter().any(|one| one == folder))
            };
            let is_change = event.is_ok_and(|event| {
                let paths = &event.paths;
                !event.kind.is_access() && (paths.is_empty() || paths.iter().any(is_wanted))
            });
            if is_change {
                // One that waits already will do. Not a word of it here: a log in this folder would feed itself.
                tell.try_send(()).ok();
            }
        };
        let watcher = notify::recommended_watcher(on_event)
            .inspect_err(
                |error| tracing::warn!(%error, "files can't be watched; changes are seen late"),
            )
            .ok();
        let mut watch = Self {
            files,
            folders,
            watched: BTreeSet::new(),
            names,
            watcher,
            changes,
            _told: told,
            settle: SETTLE,
            is_due: false,
        };
        watch.follow();
        watch
    }

    /// With another time for which files must have been left alone. Default 250 ms: whoever replaces several that belong
    /// together does so within it.
    #[must_use]
    pub fn with_settle(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }

    /// Ready once something changed about one of the files, and then nothing for a moment; where changes go on and on, after
    /// eight such moments.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a change that was not told of is told of by the next call.
    pub async fn changed(&mut self) {
        if !self.is_due {
            let _change = self.changes.recv().await;
            self.is_due = true;
        }
        let latest = Instant::now() + self.settle * 8;
        while let Ok(Some(())) = tokio::time::timeout(self.settle, self.changes.recv()).await {
            if Instant::now() >= latest {
                break;
            }
        }
        self.is_due = false;
        self.follow();
    }

    /// Watches what leads to the files now, which may be other folders than before. A folder that was deleted and made
    /// again is another one under the same name.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let all = self.files.iter().chain(&self.folders);
        let entries: BTreeSet<PathBuf> = all.flat_map(|path| ways_to(path)).collect();
        *locked(&self.names) = entries
            .iter()
            .filter_map(|entry| Some(entry.file_name()?.to_owned()))
            .collect();
        let above = entries.iter().map(|entry| folder_of(entry));
        let folders: BTreeSet<PathBuf> = above.chain(self.folders.iter().cloned()).collect();
        for old in std::mem::take(&mut self.watched) {
            // It may not be there any more.
            drop(watcher.unwatch(&old));
        }
        for folder in folders {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder);
                }
                Err(error) => {
                    tracing::debug!(%error, folder = %folder.display(), "a folder can't be watched");
                }
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWatch")
            .field("files", &self.files)
            .field("folders", &self.folders)
            .finish_non_exhaustive()
    }
}

/// The entries of folders whose change may put another file behind `path`: its own, that of its folder in case that is
/// made anew, and those of every link on the way.
fn ways_to(path: &Path) -> BTreeSet<PathBuf> {
    let mut entries = BTreeSet::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        entries.insert(folder_of(&path));
        entries.insert(path.clone());
        match first_link(&path) {
            Some((link, next)) => {
                entries.insert(link);
                path = next;
            }
            None => break,
        }
    }
    entries
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The first link in `path`, and `path` with that followed one step.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let parts: Vec<_> = path.ancestors().collect();
    parts.into_iter().rev().find_map(|part| {
        let target = std::fs::read_link(part).ok()?;
        let rest = path.strip_prefix(part).ok()?;
        let next = part.parent()?.join(target);
        let is_last = rest.as_os_str().is_empty();
        Some((
            part.to_owned(),
            if is_last { next } else { next.join(rest) },
        ))
    })
}

/// Whoever replaces several files does so within this.
const SETTLE: Duration = Duration::from_millis(250);
/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests;
