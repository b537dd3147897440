//! What cargo knows of the workspace.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::bail;
use serde_json::Value;

/// The packages of the workspace and where things are.
pub(crate) struct Workspace {
    /// The directory of the root manifest.
    pub(crate) root: PathBuf,
    /// The target directory, wherever configuration and environment put it.
    pub(crate) target: PathBuf,
    /// The members, by name.
    pub(crate) packages: BTreeMap<String, Package>,
}

/// A member of the workspace.
pub(crate) struct Package {
    /// The directory of its manifest.
    pub(crate) directory: PathBuf,
    /// Its features.
    pub(crate) features: Vec<String>,
    /// What it depends on, members and others.
    pub(crate) dependencies: Vec<Dependency>,
    /// The root file of its library, if it has one.
    pub(crate) library: Option<PathBuf>,
    /// Whether it may go to a registry.
    pub(crate) is_published: bool,
}

/// A line in a manifest.
pub(crate) struct Dependency {
    /// Name of the package that is needed.
    pub(crate) name: String,
    /// Whether only a feature turns it on.
    pub(crate) is_optional: bool,
    /// Whether only tests need it.
    pub(crate) is_dev: bool,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version=1"])
            .output()
            .context("could not start cargo")?;
        if !output.status.success() {
            bail!(
                "`cargo metadata` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .context("could not read what `cargo metadata` says")?;
        Self::from_metadata(&metadata)
    }

    fn from_metadata(metadata: &Value) -> anyhow::Result<Self> {
        let packages = metadata["packages"]
            .as_array()
            .context("no packages in `cargo metadata`")?;
        let packages = packages
            .iter()
            .map(|value| Ok((text(&value["name"])?, Package::from_metadata(value)?)));
        Ok(Self {
            root: text(&metadata["workspace_root"])?.into(),
            target: text(&metadata["target_directory"])?.into(),
            packages: packages.collect::<anyhow::Result<_>>()?,
        })
    }

    /// `cargo` in the root of the workspace.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root).args(arguments);
        command
    }

    /// A path as it stands in messages.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

impl Package {
    fn from_metadata(value: &Value) -> anyhow::Result<Self> {
        let manifest = PathBuf::from(text(&value["manifest_path"])?);
        let directory = manifest
            .parent()
            .context("a manifest without a directory")?
            .to_path_buf();
        let dependencies =
            value["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|dependency| {
                    anyhow::Ok(Dependency {
                        name: text(&dependency["name"])?,
                        is_optional: dependency["optional"] == true,
                        is_dev: dependency["kind"] == "dev",
                    })
                });
        let is_library = |target: &&Value| {
            target["kind"]
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib"))
        };
        let library = value["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .find(is_library);
        Ok(Self {
            directory,
            features: value["features"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.clone())
                .collect(),
            dependencies: dependencies.collect::<anyhow::Result<_>>()?,
            library: library
                .map(|target| text(&target["src_path"]))
                .transpose()?
                .map(PathBuf::from),
            is_published: value["publish"].is_null(),
        })
    }
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value
        .as_str()
        .with_context(|| format!("expected a text in `cargo metadata`, found {value}"))?
        .to_owned())
}

fn cargo() -> Command {
    // Cargo tells the programs that it runs which cargo it is.
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
