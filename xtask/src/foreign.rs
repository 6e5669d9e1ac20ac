//! Builds the plugins that are not written in Rust, into `plugins/dist/samples`: beside the binary, not inside of it.
//!
//! Their toolchains are packages of PyPI and npm. `.ci/run` installs them below `target/guest-tools`; on another machine they may be
//! anywhere in `PATH`, or missing, which skips the plugin by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::gates::Checked;
use crate::sh;

/// Where the components go, below the workspace.
const SAMPLES: &str = "plugins/dist/samples";

/// One plugin.
struct Plugin {
    /// Its folder below `plugins`, and the component's name.
    name: &'static str,
    tool: Tool,
}

/// What makes a component of a language.
enum Tool {
    ComponentizePy,
    ComponentizeQjs,
}

const PLUGINS: [Plugin; 2] = [
    Plugin {
        name: "guard-output",
        tool: Tool::ComponentizePy,
    },
    Plugin {
        name: "report",
        tool: Tool::ComponentizeQjs,
    },
];

impl Tool {
    /// The program, and its place below `target/guest-tools`.
    fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::ComponentizePy => ("componentize-py", "python/bin"),
            Self::ComponentizeQjs => ("componentize-qjs", "node/node_modules/.bin"),
        }
    }

    /// What installs it, for people.
    fn remedy(&self) -> &'static str {
        match self {
            Self::ComponentizePy => {
                "`python3 -m venv target/guest-tools/python && target/guest-tools/python/bin/pip install -r plugins/guard-output/requirements.txt`"
            }
            Self::ComponentizeQjs => {
                "`npm install --prefix target/guest-tools/node componentize-qjs@0.4.5`"
            }
        }
    }

    fn find(&self) -> Option<PathBuf> {
        let (program, place) = self.names();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = sh::target_dir().join("guest-tools").join(place);
        std::iter::once(own)
            .chain(std::env::split_paths(&path))
            .map(|folder| folder.join(program))
            .find(|file| file.is_file())
    }

    /// The command that makes `output` of the sources in `folder`.
    fn command(&self, program: &Path, folder: &Path, module: &str, output: &Path) -> Command {
        let wit = sh::root().join("wit");
        let mut command = Command::new(program);
        match self {
            Self::ComponentizePy => command
                .args(["--quiet", "--world", "hook-plugin", "--wit-path"])
                .arg(wit)
                .args(["componentize", "--python-path", ".", "--output"])
                .arg(output)
                .arg(module),
            Self::ComponentizeQjs => command
                .args(["--sync", "--opt-size", "--world", "hook-plugin", "--wit"])
                .arg(wit)
                .arg("--js")
                .arg(format!("{module}.js"))
                .arg("--output")
                .arg(output),
        };
        command.current_dir(folder);
        command
    }
}

/// Builds each plugin whose sources are newer than its component.
///
/// # Errors
/// When one does not build, and in continuous integration when a toolchain is missing.
pub(crate) fn build() -> Result<Checked> {
    let samples = sh::root().join(SAMPLES);
    fs::create_dir_all(&samples).with_context(|| format!("cannot create {}", samples.display()))?;
    let mut skipped = Vec::new();
    for plugin in &PLUGINS {
        let folder = sh::root().join("plugins").join(plugin.name);
        let output = samples.join(format!("{}.wasm", plugin.name));
        let (program, _) = plugin.tool.names();
        let Some(tool) = plugin.tool.find() else {
            let missing = format!(
                "{}: {program} is missing ({})",
                plugin.name,
                plugin.tool.remedy()
            );
            if sh::is_ci() {
                bail!("{missing}");
            }
            eprintln!("skipped {missing}");
            skipped.push(missing);
            continue;
        };
        if is_current(&output, &[&folder, &sh::root().join("wit")])? {
            eprintln!("{} is up to date", output.display());
            continue;
        }
        let beside = output.with_extension("wasm.new");
        let module = plugin.name.replace('-', "_");
        sh::run(&mut plugin.tool.command(&tool, &folder, &module, &beside))?;
        fs::rename(&beside, &output)
            .with_context(|| format!("cannot write {}", output.display()))?;
        eprintln!("wrote {}", output.display());
    }
    if skipped.is_empty() {
        return Ok(Checked::Passed);
    }
    Ok(Checked::Skipped(skipped.join("; ")))
}

/// Whether `output` is newer than every file of the folders.
fn is_current(output: &Path, folders: &[&Path]) -> Result<bool> {
    let Ok(built) = fs::metadata(output).and_then(|file| file.modified()) else {
        return Ok(false);
    };
    for folder in folders {
        if newest(folder).with_context(|| format!("cannot read {}", folder.display()))? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

fn newest(folder: &Path) -> std::io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let changed = if entry.file_type()?.is_dir() {
            newest_unless_built(&entry.path())?
        } else {
            entry.metadata()?.modified()?
        };
        newest = newest.max(changed);
    }
    Ok(newest)
}

/// Folders that tools write into say nothing of the sources.
fn newest_unless_built(folder: &Path) -> std::io::Result<SystemTime> {
    let is_built = folder
        .file_name()
        .is_some_and(|name| name == "node_modules" || name == "__pycache__");
    if is_built {
        return Ok(SystemTime::UNIX_EPOCH);
    }
    newest(folder)
}
