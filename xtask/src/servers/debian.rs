//! Programs from Debian packages, unpacked into a directory of ours instead of installed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::bail;

use crate::step::output;
use crate::step::succeeds;

/// Where packages are downloaded to and unpacked.
pub(crate) struct Debian {
    /// The downloaded files.
    archives: PathBuf,
    /// The file system that the packages make.
    root: PathBuf,
    /// Package lists of our own, for a machine that has none or too old ones.
    lists: PathBuf,
    /// The release that packages come from, where it is not the one of this machine.
    suite: Option<&'static str>,
    /// Whether the package lists of our own are in use.
    has_own_lists: bool,
    /// What was unpacked in this run.
    unpacked: BTreeSet<String>,
}

impl Debian {
    /// Below a directory; nothing is made yet.
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            archives: home.join("debian/archives"),
            root: home.join("debian/root"),
            lists: home.join("debian/apt"),
            suite: None,
            has_own_lists: false,
            unpacked: BTreeSet::new(),
        }
    }

    /// The same for packages of another release of Debian, which this machine's list of sources need not name. They get
    /// folders of their own, so that no library of theirs meets one of this release.
    pub(crate) fn of_suite(home: &Path, suite: &'static str) -> Self {
        let folder = home.join("debian").join(suite);
        Self {
            archives: folder.join("archives"),
            root: folder.join("root"),
            lists: folder.join("apt"),
            suite: Some(suite),
            has_own_lists: false,
            unpacked: BTreeSet::new(),
        }
    }

    /// Downloads a package and unpacks it; with the libraries that it needs and this machine has not.
    pub(crate) fn unpack(&mut self, package: &str, needs_libraries: bool) -> anyhow::Result<()> {
        if !self.unpacked.insert(package.to_owned()) {
            return Ok(());
        }
        if !succeeds(Command::new("apt-get").arg("--version")) {
            bail!(
                "not on the PATH, and this system has no apt-get to fetch package {package}; install it"
            );
        }
        for folder in [&self.archives, &self.root] {
            fs::create_dir_all(folder)
                .with_context(|| format!("could not make {}", folder.display()))?;
        }
        if self.suite.is_some() && !self.has_own_lists {
            self.update()?;
        }
        let files = match self.download(package, needs_libraries) {
            Ok(files) => files,
            Err(_) if !self.has_own_lists => {
                self.update()?;
                self.download(package, needs_libraries)?
            }
            Err(error) => return Err(error),
        };
        for file in files {
            output(Command::new("dpkg").arg("-x").arg(&file).arg(&self.root))?;
        }
        Ok(())
    }

    /// A script that starts an unpacked program with the unpacked libraries.
    pub(crate) fn wrap(&self, name: &str, home: &Path) -> anyhow::Result<PathBuf> {
        let places = ["usr/bin", "usr/sbin"].map(|folder| self.root.join(folder).join(name));
        let program = places.iter().find(|place| place.is_file());
        let program = program.with_context(|| format!("the package has no program {name}"))?;
        let folders: Vec<_> = self
            .library_folders()?
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
            folders.join(":"),
            program.display()
        );
        let path = home.join("bin").join(name);
        fs::create_dir_all(home.join("bin"))?;
        fs::write(&path, script).with_context(|| format!("could not write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// The unpacked file in a folder whose name begins like this.
    pub(crate) fn find(&self, folder: &str, prefix: &str) -> anyhow::Result<PathBuf> {
        let folder = self.root.join(folder);
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("could not list {}", folder.display()))?;
        let mut names = entries.filter_map(Result::ok);
        let found = names.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        Ok(found
            .with_context(|| format!("no {prefix}… in {}", folder.display()))?
            .path())
    }

    /// Fetches package lists into a directory of ours, which needs no root.
    fn update(&mut self) -> anyhow::Result<()> {
        for folder in ["lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(self.lists.join(folder))?;
        }
        if let Some(suite) = self.suite {
            let sources = format!(
                "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n",
                mirror()
            );
            fs::write(
                self.lists.join("sources").join(format!("{suite}.sources")),
                sources,
            )?;
        }
        self.has_own_lists = true;
        output(self.apt("apt-get").arg("update")).context("could not fetch the package lists")?;
        Ok(())
    }

    fn download(&self, package: &str, needs_libraries: bool) -> anyhow::Result<Vec<PathBuf>> {
        let mut packages = BTreeSet::from([package.to_owned()]);
        if needs_libraries {
            let plan = output(self.apt("apt-get").args([
                "install",
                "--simulate",
                "--no-install-recommends",
                package,
            ]))?;
            let named = plan
                .lines()
                .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
            packages.extend(named.map(str::to_owned));
        }
        // A folder for each package, so that its files are known without guessing at versions.
        let folder = self.archives.join(package);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        output(
            self.apt("apt-get")
                .arg("download")
                .args(&packages)
                .current_dir(&folder),
        )
        .with_context(|| format!("could not download package {package}"))?;
        let entries = fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
        Ok(entries.iter().map(fs::DirEntry::path).collect())
    }

    /// A command of apt's that changes nothing outside our directories.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-o", "Debug::NoLocking=1"]);
        // Root would download as the user _apt, who may not write here.
        command.args(["-o", "APT::Sandbox::User=root"]);
        if self.has_own_lists {
            for (option, folder) in [("Dir::State::lists", "lists"), ("Dir::Cache", "cache")] {
                command
                    .arg("-o")
                    .arg(format!("{option}={}", self.lists.join(folder).display()));
            }
        }
        if self.suite.is_some() {
            let sources = self.lists.join("sources");
            for (option, path) in [
                ("Dir::Etc::sourcelist", Path::new("/dev/null")),
                ("Dir::Etc::sourceparts", &sources),
                ("Dir::Etc::preferences", Path::new("/dev/null")),
                ("Dir::Etc::preferencesparts", Path::new("/dev/null")),
            ] {
                command
                    .arg("-o")
                    .arg(format!("{option}={}", path.display()));
            }
        }
        command
    }

    fn library_folders(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for base in ["usr/lib", "lib"] {
            let base = self.root.join(base);
            if !base.is_dir() {
                continue;
            }
            folders.push(base.clone());
            for entry in fs::read_dir(&base)? {
                let entry = entry?;
                // Multiarch: usr/lib/x86_64-linux-gnu.
                if entry.file_name().to_string_lossy().ends_with("-linux-gnu") {
                    folders.push(entry.path());
                }
            }
        }
        Ok(folders)
    }
}

/// The mirror that this machine takes Debian's packages from, or the one that Debian names.
fn mirror() -> String {
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let named = sources
        .lines()
        .find_map(|line| line.strip_prefix("URIs:")?.split_whitespace().next());
    named.unwrap_or("http://deb.debian.org/debian").to_owned()
}

/// The keys that sign Debian's releases, as Debian itself installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
