//! The container image, built by the project's `Dockerfile` as a user would, on a base made of Debian's packages.
//!
//! The binary comes in as a release's tarball, so nothing is compiled for it. Everything is kept below the target folder: the base is
//! made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::tools::{find_tool, output_of, workspace};

/// What the base is called in the store, and the image.
const BASE: &str = "localhost/agenticore-base";
const NAME: &str = "localhost/agenticore";

/// An image in a store of its own.
#[derive(Debug)]
pub struct Image {
    /// Where it is kept, and the base it stands on.
    pub folder: PathBuf,
    /// Its size in bytes, with the base.
    pub size: u64,
    /// The size of the base alone.
    pub base_size: u64,
}

impl Image {
    /// What the Dockerfile is built with: the stage, and where the binary comes from.
    pub const ARGUMENTS: [&str; 4] = ["--target", "server", "--build-arg", "BINARY_FROM=release"];

    /// Why it cannot be built on this machine; none: it can.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("building an image without a daemon needs root".into());
        }
        let missing: Vec<&str> = ["buildah", "mmdebstrap", "unshare", "strip"]
            .into_iter()
            .filter(|tool| find_tool(tool).is_none())
            .collect();
        let missing = missing.join(" and ");
        (!missing.is_empty()).then(|| format!("{missing} is not installed (.ci/run does it)"))
    }

    /// The image with this binary in its stage `server`; built once in the life of a process.
    ///
    /// # Errors
    /// With what the tool that failed said.
    pub fn build(binary: &Path) -> Result<&'static Self, String> {
        static IMAGE: OnceLock<Result<Image, String>> = OnceLock::new();
        let image = IMAGE.get_or_init(|| Self::build_now(binary));
        image.as_ref().map_err(Clone::clone)
    }

    /// Makes the folder that the Dockerfile is built in, with this binary as the release.
    ///
    /// # Errors
    /// With what is in the way.
    pub fn context(binary: &Path) -> Result<PathBuf, String> {
        let context = folder().join("context");
        fs::create_dir_all(&context).map_err(|e| format!("{}: {e}", context.display()))?;
        prepare(&context, binary)?;
        Ok(context)
    }

    fn build_now(binary: &Path) -> Result<Self, String> {
        let context = Self::context(binary)?;
        let folder = folder();
        let base = make_base(&folder)?;
        let image = Self {
            folder,
            size: 0,
            base_size: 0,
        };
        if output_of(&mut image.buildah(&["inspect", "--type", "image", BASE])).is_err() {
            let source = format!("tarball:{}", base.display());
            let id = output_of(&mut image.buildah(&["pull", "--quiet", &source]))?;
            output_of(&mut image.buildah(&["tag", id.trim(), BASE]))?;
        }
        let mut build = image.buildah(&["build", "--quiet", "--isolation", "chroot"]);
        build
            .args(["--network", "host", "--pull-never"])
            .args(Self::ARGUMENTS)
            .args(["--build-arg", &format!("BASE={BASE}")])
            .args(["--tag", NAME])
            .arg(&context);
        output_of(&mut build)?;
        let sizes = (image.size_of(NAME)?, image.size_of(BASE)?);
        // What an earlier build left; it is no harm where something still holds it.
        drop(output_of(&mut image.buildah(&["rmi", "--prune"])));
        Ok(Self {
            size: sizes.0,
            base_size: sizes.1,
            ..image
        })
    }

    /// What is written into the image about how to run it, as the tools of containers read it.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn config(&self) -> serde_json::Value {
        let text = output_of(&mut self.buildah(&["inspect", "--type", "image", NAME]));
        let all: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
        all["OCIv1"]["config"].clone()
    }

    /// Writes it to a file that `docker load` takes, under this name.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn archive(&self, file: &Path, name: &str) {
        let to = format!("docker-archive:{}:{name}", file.display());
        output_of(&mut self.buildah(&["push", "--quiet", NAME, &to])).unwrap();
    }

    /// Makes a container of it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn container(&self) -> Container<'_> {
        let id = output_of(&mut self.buildah(&["from", "--quiet", "--pull-never", NAME])).unwrap();
        Container {
            image: self,
            id: id.trim().to_owned(),
        }
    }

    fn size_of(&self, name: &str) -> Result<u64, String> {
        let text = output_of(&mut self.buildah(&["images", "--json", name]))?;
        let list: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        // Said for people, in decimal units.
        let shown = list[0]["size"].as_str().unwrap_or_default();
        let (number, unit) = shown.split_once(' ').unwrap_or((shown, ""));
        let factor = match unit {
            "GB" => 1e9,
            "MB" => 1e6,
            "KB" => 1e3,
            _ => return Err(format!("{name} has the size {shown:?}")),
        };
        let number: f64 = number
            .parse()
            .map_err(|_| format!("{name} has the size {shown:?}"))?;
        Ok((number * factor) as u64)
    }

    /// The builder's command line over this store.
    fn words(&self, arguments: &[&str]) -> Vec<String> {
        let below = |name: &str| self.folder.join(name).display().to_string();
        let store = ["buildah", "--storage-driver", "overlay", "--root"].map(str::to_owned);
        let mut words: Vec<String> = store.into();
        words.extend([below("store"), "--runroot".to_owned(), below("run")]);
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    /// The builder. What it mounts is in a namespace of its own and gone with it, however it ends.
    fn buildah(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private"])
            .args(self.words(arguments));
        command
    }
}

/// A container that nothing runs in yet. Dropping it removes it.
#[derive(Debug)]
pub struct Container<'a> {
    image: &'a Image,
    id: String,
}

impl Container<'_> {
    /// A command for a shell that mounts its root and prints the folder. In a mount namespace of the caller's own, the mount is gone
    /// with that.
    #[must_use]
    pub fn mounting(&self) -> String {
        let quoted = |word: &String| format!("'{word}'");
        let words = self.image.words(&["mount", &self.id]);
        words.iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        drop(output_of(&mut self.image.buildah(&["rm", &self.id])));
    }
}

fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(target).join("image")
}

/// Debian with what the server needs. It takes a while, so it is kept, and a run that is killed leaves no half of it.
fn make_base(folder: &Path) -> Result<PathBuf, String> {
    let base = folder.join("base.tar");
    if base.exists() {
        return Ok(base);
    }
    let begun = folder.join("base.begun.tar");
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=minbase", "--quiet"])
        .arg("--include=ca-certificates,git,openssh-client")
        .args(
            [
                "/usr/share/doc/*",
                "/usr/share/man/*",
                "/usr/share/locale/*",
            ]
            .map(|below| format!("--dpkgopt=path-exclude={below}")),
        )
        .arg("bookworm")
        .arg(&begun);
    output_of(&mut command)?;
    fs::rename(&begun, &base).map_err(|e| format!("{}: {e}", base.display()))?;
    Ok(base)
}

/// What the Dockerfile's stages `release` and `server` copy.
fn prepare(context: &Path, binary: &Path) -> Result<(), String> {
    for name in ["profiles", "policies", "LICENSE", "Dockerfile"] {
        let from = workspace().join(name);
        output_of(
            Command::new("cp")
                .arg("-r")
                .arg("--no-target-directory")
                .arg(from)
                .arg(context.join(name)),
        )?;
    }
    let stripped = context.join("agenticore");
    output_of(Command::new("strip").arg("-o").arg(&stripped).arg(binary))?;
    let mut pack = Command::new("tar");
    pack.arg("-C")
        .arg(context)
        .args(["-czf"])
        .arg(context.join("release.tar.gz"))
        .arg("agenticore");
    output_of(&mut pack)?;
    fs::remove_file(&stripped).map_err(|e| e.to_string())
}
