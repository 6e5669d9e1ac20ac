//! A new plugin project: what `agenticore plugin new` writes, from templates that are part of the binary.
//!
//! A project stands on its own: it holds a copy of the contract, and in Rust of the crate `agenticore-plugin`, so it needs nothing but
//! the public packages of its language.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use minijinja::{Environment, Value, context};
use serde::Serialize;

use crate::bundled::{self, File};

/// The most letters of a name.
const MAX_NAME: usize = 64;
/// Files with this ending are templates, and lose it.
const TEMPLATE: &str = ".j2";
/// The package that a project in Rust has a copy of.
const SDK: &str = "agenticore-plugin";

/// The language of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Language {
    /// Rust, with the crate `agenticore-plugin`.
    Rust,
    /// Python, made into a component by `componentize-py`.
    Python,
    /// JavaScript, made into a component by `componentize-qjs`.
    Javascript,
}

/// What a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Turns a profile into a launch plan, and reads what the launched program prints.
    Profile,
    /// Judges jobs before they start and after they end.
    Hooks,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The name cannot be one of a plugin.
    #[error(
        "{name:?} cannot be a plugin's name: {problem}. Use lower-case letters, digits and single '-' between them, such as `my-policy`"
    )]
    Name {
        /// What was given.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// There is something already.
    #[error("{} exists already; choose another name, or another place with --path", .0.display())]
    Exists(PathBuf),
    /// The folder cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A template is wrong, which is a defect of this program.
    #[error("the template {file} is broken: {source}; please report it")]
    Template {
        /// Which one.
        file: String,
        /// How.
        source: minijinja::Error,
    },
}

/// A file of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectFile {
    /// Its path below the project's folder.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// A project that was written.
#[derive(Debug, Clone, Serialize)]
pub struct Project {
    /// The plugin's name.
    pub name: String,
    /// Its language.
    pub language: Language,
    /// What it does.
    pub kind: Kind,
    /// The folder.
    pub path: PathBuf,
    /// The files below it, sorted.
    pub files: Vec<String>,
}

impl Language {
    fn folder(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Javascript => "javascript",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Javascript => "JavaScript",
        }
    }

    fn source(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::Python => "app.py",
            Self::Javascript => "plugin.js",
        }
    }

    /// Where the copy of the contract is.
    fn wit(self) -> &'static str {
        match self {
            Self::Rust => "sdk/wit",
            Self::Python | Self::Javascript => "wit",
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::Rust => {
                "It needs Rust with the target `wasm32-wasip2`: `rustup target add wasm32-wasip2`."
            }
            Self::Python => {
                "It needs Python 3.10 or newer. The component holds all of Python: it has 18 MiB, and a server takes seconds to compile it, once."
            }
            Self::Javascript => "It needs Node.js 18 or newer.",
        }
    }
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Hooks => "hooks",
        }
    }

    /// The world of the contract that the plugin has.
    fn world(self) -> &'static str {
        match self {
            Self::Profile => "profile-plugin",
            Self::Hooks => "hook-plugin",
        }
    }
}

/// Writes a project to the folder `path`, all of it or nothing.
///
/// # Errors
/// [`ScaffoldError`] for a bad name, a folder that exists, or one that cannot be written.
pub fn create(
    path: &Path,
    name: &str,
    language: Language,
    kind: Kind,
) -> Result<Project, ScaffoldError> {
    check_name(name)?;
    if fs::symlink_metadata(path).is_ok() {
        return Err(ScaffoldError::Exists(path.to_owned()));
    }
    let files = files(name, language, kind)?;
    write(path, &files).map_err(|source| ScaffoldError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(Project {
        name: name.to_owned(),
        language,
        kind,
        path: path.to_owned(),
        files: files.into_iter().map(|file| file.path).collect(),
    })
}

/// The files of a project, sorted by path.
///
/// # Errors
/// [`ScaffoldError::Template`] when a template is broken.
pub fn files(
    name: &str,
    language: Language,
    kind: Kind,
) -> Result<Vec<ProjectFile>, ScaffoldError> {
    let values = context! {
        name,
        kind => kind.folder(),
        world => kind.world(),
        language => language.title(),
        source => language.source(),
        wit => language.wit(),
        needs => language.needs(),
        api => api_version(),
        version => env!("CARGO_PKG_VERSION"),
    };
    let (of_language, of_kind) = (language.folder(), kind.folder());
    let folders = [
        "common/".to_owned(),
        format!("{of_kind}/"),
        format!("{of_language}/common/"),
        format!("{of_language}/{of_kind}/"),
    ];
    let mut files = Vec::new();
    for file in bundled::templates() {
        let below = folders
            .iter()
            .find_map(|folder| file.path.strip_prefix(folder.as_str()));
        if let Some(path) = below {
            files.push(render(path, file, &values)?);
        }
    }
    files.extend(
        bundled::contract()
            .iter()
            .map(|file| copy(language.wit(), file)),
    );
    if language == Language::Rust {
        files.extend(bundled::sdk().iter().map(|file| copy("sdk", file)));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The version of the contract, as its package says.
#[must_use]
pub fn api_version() -> &'static str {
    let texts = bundled::contract()
        .iter()
        .filter_map(|file| std::str::from_utf8(file.bytes).ok());
    texts
        .flat_map(str::lines)
        .find_map(|line| {
            line.strip_prefix("package agenticore:plugin@")?
                .strip_suffix(';')
        })
        .unwrap_or_default()
}

fn check_name(name: &str) -> Result<(), ScaffoldError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let problem = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > MAX_NAME {
        format!("it has more than {MAX_NAME} letters")
    } else if let Some(letter) = name.chars().find(|c| !plain(*c)) {
        format!("{letter:?} is not allowed in it")
    } else if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        "it does not begin with a letter".to_owned()
    } else if name.ends_with('-') || name.contains("--") {
        "a '-' must stand between two others".to_owned()
    } else if name == SDK {
        "the crate for plugins is called that".to_owned()
    } else {
        return Ok(());
    };
    Err(ScaffoldError::Name {
        name: name.to_owned(),
        problem,
    })
}

fn render(path: &str, file: &File, values: &Value) -> Result<ProjectFile, ScaffoldError> {
    let Some(path) = path.strip_suffix(TEMPLATE) else {
        return Ok(ProjectFile {
            path: path.to_owned(),
            bytes: file.bytes.to_owned(),
            executable: file.executable,
        });
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let text = String::from_utf8_lossy(file.bytes);
    let text = environment
        .render_str(&text, values)
        .map_err(|source| ScaffoldError::Template {
            file: file.path.to_owned(),
            source,
        })?;
    Ok(ProjectFile {
        path: path.to_owned(),
        // A template's own last line end is no part of what it renders to.
        bytes: (text + "\n").into_bytes(),
        executable: file.executable,
    })
}

fn copy(folder: &str, file: &File) -> ProjectFile {
    ProjectFile {
        path: format!("{folder}/{}", file.path),
        bytes: file.bytes.to_owned(),
        executable: file.executable,
    }
}

/// Writes beside the target and renames once, so that an interrupted command leaves nothing behind that looks like a project.
fn write(path: &Path, files: &[ProjectFile]) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let fresh = tempfile::Builder::new()
        .prefix(".agenticore-new-")
        .tempdir_in(parent)?;
    for file in files {
        let place = fresh.path().join(&file.path);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&place, &file.bytes)?;
        if file.executable {
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        }
    }
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))?;
    fs::rename(fresh.keep(), path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn names(language: Language, kind: Kind) -> Vec<String> {
        let files = files("my-plugin", language, kind).unwrap();
        for file in &files {
            let text = String::from_utf8(file.bytes.clone()).unwrap();
            assert!(
                !text.contains("{{") && !text.contains("{%"),
                "{}: {text}",
                file.path
            );
        }
        files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn every_project_has_its_source_the_contract_cases_and_a_way_to_build() {
        for language in [Language::Rust, Language::Python, Language::Javascript] {
            for kind in [Kind::Profile, Kind::Hooks] {
                let names = names(language, kind);
                let contract = format!("{}/world.wit", language.wit());
                for name in [
                    language.source(),
                    &contract,
                    "build.sh",
                    "README.md",
                    "profile.yml",
                    ".gitignore",
                ] {
                    assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
                }
                assert!(
                    names
                        .iter()
                        .any(|name| name.starts_with("cases/") && name.ends_with("case.yml"))
                );
                assert!(names.is_sorted() && !names.iter().any(|name| name.ends_with(".j2")));
            }
        }
    }

    #[test]
    fn the_copy_of_the_crate_stands_on_what_the_crate_itself_stands_on() {
        let line = |text: &str| {
            text.lines()
                .find(|line| line.starts_with("wit-bindgen = "))
                .map(str::to_owned)
        };
        let files = files("x", Language::Rust, Kind::Hooks).unwrap();
        let copy = files
            .iter()
            .find(|file| file.path == "sdk/Cargo.toml")
            .unwrap();
        let copy = line(&String::from_utf8_lossy(&copy.bytes));
        assert!(copy.is_some());
        assert_eq!(copy, line(include_str!("../../Cargo.toml")));
    }

    #[test]
    fn names_are_checked_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            create(
                &folder.path().join("x"),
                name,
                Language::Python,
                Kind::Hooks,
            )
        };
        for (name, says) in [
            ("", "empty"),
            ("My", "'M' is not allowed"),
            ("../up", "'.' is not allowed"),
            ("1st", "begin with a letter"),
            ("a--b", "between"),
            ("a-", "between"),
            ("agenticore-plugin", "crate"),
        ] {
            let error = make(name).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        make("fine").unwrap();
        assert!(
            make("fine")
                .unwrap_err()
                .to_string()
                .contains("exists already")
        );
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
