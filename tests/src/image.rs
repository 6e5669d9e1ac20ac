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
    folder: PathBuf,
    /// Its size in bytes, with the base.
    pub size: u64,
    /// The size of the base alone.
    pub base_size: u64,
}

impl Image {
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

    fn build_now(binary: &Path) -> Result<Self, String> {
        let folder = target().join("image");
        let context = folder.join("context");
        fs::create_dir_all(&context).map_err(|e| format!("{}: {e}", context.display()))?;
        let base = make_base(&folder)?;
        prepare(&context, binary)?;
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
            .args(["--network", "host", "--pull-never", "--target", "server"])
            .args(["--build-arg", &format!("BASE={BASE}")])
            .args(["--build-arg", "BINARY_FROM=release"])
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

    /// Makes a container of it and returns the folder of its root.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn mount(&self) -> Container<'_> {
        let id = output_of(&mut self.buildah(&["from", "--quiet", "--pull-never", NAME])).unwrap();
        let id = id.trim().to_owned();
        let root = output_of(&mut self.buildah(&["mount", &id])).unwrap();
        Container {
            image: self,
            id,
            root: root.trim().into(),
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

    fn buildah(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command
            .args(["--storage-driver", "overlay", "--root"])
            .arg(self.folder.join("store"))
            .arg("--runroot")
            .arg(self.folder.join("run"))
            .args(arguments);
        command
    }
}

/// A container that nothing runs in yet. Dropping it removes it.
#[derive(Debug)]
pub struct Container<'a> {
    image: &'a Image,
    id: String,
    /// Its root.
    pub root: PathBuf,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        for word in ["umount", "rm"] {
            drop(output_of(&mut self.image.buildah(&[word, &self.id])));
        }
    }
}

fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(target)
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
