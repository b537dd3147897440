//! A Python environment with implementations of gRPC and of cryptography that are not ours.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::servers::debian::Debian;
use crate::servers::on_path;
use crate::step::output;
use crate::step::succeeds;

/// Pinned, so that a new release can't turn a build red; grpcio-tools holds protoc.
pub(crate) const REQUIREMENTS: [&str; 3] = [
    "cryptography==50.0.2",
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
];

/// Makes the environment unless it is there, and gives its interpreter.
pub(crate) fn prepare(home: &Path, debian: &mut Debian) -> anyhow::Result<PathBuf> {
    let folder = home.join("python");
    let python = folder.join("bin/python");
    if !imports(&python) {
        let system = on_path("python3").context("python3 is not on the PATH; install it")?;
        // An environment that an interrupted run left half made is made anew.
        if !succeeds(
            Command::new(&system)
                .args(["-m", "venv", "--clear"])
                .arg(&folder),
        ) {
            output(
                Command::new(&system)
                    .args(["-m", "venv", "--clear", "--without-pip"])
                    .arg(&folder),
            )
            .context("could not make a virtual environment")?;
        }
        install(&python, debian)?;
    }
    Ok(python)
}

fn install(python: &Path, debian: &mut Debian) -> anyhow::Result<()> {
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--only-binary=:all:",
    ]);
    if !succeeds(Command::new(python).args(["-m", "pip", "--version"])) {
        // Debian keeps pip in a package of its own; a wheel runs without being installed.
        debian.unpack("python3-pip-whl", false)?;
        pip.env(
            "PYTHONPATH",
            debian.find("usr/share/python-wheels", "pip-")?,
        );
    }
    output(pip.args(REQUIREMENTS)).context("could not install the Python packages")?;
    Ok(())
}

/// True when the interpreter runs and has all packages in the pinned versions.
fn imports(python: &Path) -> bool {
    let check = "import sys, importlib.metadata as m\n\
        for p in sys.argv[1:]:\n    n, v = p.split('=='); assert m.version(n) == v\n\
        import cryptography.hazmat.primitives.asymmetric.mlkem, grpc, grpc_tools.protoc";
    succeeds(Command::new(python).args(["-c", check]).args(REQUIREMENTS))
}
