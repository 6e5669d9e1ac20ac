//! `plugin test`: a folder of cases, each a sample job and what the plugin is expected to answer.
//!
//! A case is a folder with a `case.yml`, which is a [`Sample`], and a folder `expected`: for a plan `plan.json` and its files as they
//! are below `tree`, for a hook `verdict.json` or `review.json`, for a refusal `error.json`. With `update` what was answered takes
//! the place of what was expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use similar::TextDiff;

use super::document::{self, Answer};
use super::sample::Sample;
use super::trial::{Failed, Ran, component_of};
use super::{Unusable, Use, Workbench};
use crate::plugin::types::FileMode;
use crate::plugin::{PluginError, text};
use crate::profile::Component;

/// The document of a case.
const DOCUMENT: &str = "case.yml";
/// What the plugin is expected to answer.
const EXPECTED: &str = "expected";
/// How deep cases may lie below the folder that is tested.
const MAX_DEPTH: usize = 3;
/// Where a project keeps its component, seen from its folder of cases.
const USUAL_PLACES: [&str; 2] = ["plugin.wasm", "../plugin.wasm"];

/// A file that was expected or answered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Golden {
    executable: bool,
    bytes: Vec<u8>,
}

type Goldens = BTreeMap<String, Golden>;

/// How one case went.
#[derive(Debug, Serialize)]
pub struct CaseReport {
    /// The case's folder below the folder that is tested.
    pub name: String,
    /// How it ended.
    pub ended: Ended,
    /// What differs from what was expected, as unified diffs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// What was used of the limits.
    pub used: Vec<Use>,
    /// The plugin's log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// As expected.
    Passed,
    /// Otherwise.
    Failed,
    /// What was answered is now what is expected.
    Updated,
}

/// A file that is not as expected.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// Its path below `expected`.
    pub file: String,
    /// A unified diff, or one sentence where there is nothing to show.
    pub diff: String,
}

/// The cases below a folder, sorted by name.
///
/// # Errors
/// [`Unusable`] when there is none, or a folder cannot be read.
pub fn find(folder: &Path) -> Result<Vec<PathBuf>, Unusable> {
    let mut found = Vec::new();
    descend(folder, 0, &mut found)?;
    found.sort();
    if found.is_empty() {
        return Err(Unusable::at(
            folder,
            format!(
                "there is no case here: a case is a folder with a `{DOCUMENT}`, such as {}",
                folder.join("hello").join(DOCUMENT).display()
            ),
        ));
    }
    Ok(found)
}

fn descend(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Unusable> {
    if folder.join(DOCUMENT).is_file() {
        found.push(folder.to_owned());
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(|e| Unusable::at(folder, e))?;
    for entry in entries {
        let path = entry.map_err(|e| Unusable::at(folder, e))?.path();
        if path.is_dir() && !path.is_symlink() {
            descend(&path, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Runs one case of `folder`, and writes down what it answered if `update`.
///
/// # Errors
/// [`Unusable`] when the case itself is malformed or cannot be written.
pub async fn run(
    bench: &Workbench,
    folder: &Path,
    case: &Path,
    named: Option<&Path>,
    update: bool,
) -> Result<CaseReport, Unusable> {
    let document = case.join(DOCUMENT);
    let sample = Sample::read(&document)?;
    let component = match component_of(&sample, &document, named)? {
        Some(component) => component,
        None => usual_component(folder)?,
    };
    let ran = match bench.prepare(&component, sample, &document).await {
        Ok(trial) => Ok(bench.run(&trial).await),
        Err(failed) => Err(failed),
    };
    let (answered, ran) = match ran {
        Ok(ran) => (goldens(&ran.answer), Some(ran)),
        Err(Failed::Plugin(error)) => (goldens(&Err(error)), None),
        Err(Failed::Unusable(problem)) => return Err(problem),
    };
    let place = case.join(EXPECTED);
    let expected = read_goldens(&place)?;
    let mut differences = differ(&expected, &answered);
    let mut ended = if differences.is_empty() {
        Ended::Passed
    } else {
        Ended::Failed
    };
    if ended == Ended::Failed && update {
        write_goldens(&place, &answered)?;
        (ended, differences) = (Ended::Updated, Vec::new());
    }
    Ok(report(folder, case, ended, differences, ran))
}

fn report(
    folder: &Path,
    case: &Path,
    ended: Ended,
    differences: Vec<Difference>,
    ran: Option<Ran>,
) -> CaseReport {
    let below = case.strip_prefix(folder).unwrap_or(case);
    let name = match below.to_string_lossy() {
        name if name.is_empty() => ".".to_owned(),
        name => name.into_owned(),
    };
    let log = ran.as_ref().and_then(|ran| ran.report.as_ref());
    CaseReport {
        name,
        ended,
        differences,
        used: ran.as_ref().map(Ran::uses).unwrap_or_default(),
        log: log
            .map(|report| report.log_tail.clone())
            .unwrap_or_default(),
    }
}

fn usual_component(folder: &Path) -> Result<Component, Unusable> {
    let places = USUAL_PLACES.map(|place| folder.join(place));
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(Component::File(place.clone())),
        None => Err(Unusable::at(
            folder,
            "no component is named: use --component FILE, `component:` in the case, or put a `plugin.wasm` beside the folder",
        )),
    }
}

/// An answer as the files of `expected`.
fn goldens(answer: &Result<Answer, PluginError>) -> Goldens {
    let plain = |value| Golden {
        executable: false,
        bytes: document::text(&value).into_bytes(),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return BTreeMap::from([("error.json".to_owned(), plain(document::refusal(error)))]);
        }
    };
    let mut files = BTreeMap::from([(answer.file_name().to_owned(), plain(answer.document()))]);
    let tree = answer.plan().map(|plan| plan.tree.files());
    for file in tree.unwrap_or_default() {
        let golden = Golden {
            executable: file.mode == FileMode::Executable,
            bytes: file.bytes.to_vec(),
        };
        files.insert(format!("tree/{}", file.path), golden);
    }
    files
}

fn read_goldens(folder: &Path) -> Result<Goldens, Unusable> {
    let mut files = BTreeMap::new();
    if folder.is_dir() {
        read_below(folder, folder, &mut files)?;
    }
    Ok(files)
}

fn read_below(root: &Path, folder: &Path, files: &mut Goldens) -> Result<(), Unusable> {
    let wrong = |e: std::io::Error| Unusable::at(folder, e);
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let metadata = fs::symlink_metadata(&path).map_err(|e| Unusable::at(&path, e))?;
        if metadata.is_dir() {
            read_below(root, &path, files)?;
            continue;
        }
        let name = path.strip_prefix(root).unwrap_or(&path);
        let golden = Golden {
            executable: metadata.permissions().mode() & 0o100 != 0,
            bytes: fs::read(&path).map_err(|e| Unusable::at(&path, e))?,
        };
        files.insert(name.to_string_lossy().into_owned(), golden);
    }
    Ok(())
}

/// Written beside and renamed, so that an interrupted update leaves the old answer or the new one.
fn write_goldens(place: &Path, files: &Goldens) -> Result<(), Unusable> {
    let wrong = |e: std::io::Error| Unusable::at(place, e);
    let parent = place.parent().unwrap_or(Path::new("."));
    let fresh = tempfile::Builder::new()
        .prefix(".expected-")
        .tempdir_in(parent)
        .map_err(wrong)?;
    for (name, golden) in files {
        let path = fresh.path().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(wrong)?;
        }
        fs::write(&path, &golden.bytes).map_err(wrong)?;
        let mode = if golden.executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(wrong)?;
    }
    if place.exists() {
        fs::remove_dir_all(place).map_err(wrong)?;
    }
    let fresh = fresh.keep();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).map_err(wrong)?;
    fs::rename(fresh, place).map_err(wrong)
}

fn differ(expected: &Goldens, answered: &Goldens) -> Vec<Difference> {
    if expected.is_empty() {
        let files: Vec<_> = answered.keys().map(String::as_str).collect();
        return vec![Difference {
            file: EXPECTED.to_owned(),
            diff: format!(
                "nothing is expected yet; look at the answer ({}) with `agenticore plugin run`, then accept it with --update",
                files.join(", ")
            ),
        }];
    }
    let names: BTreeSet<&String> = expected.keys().chain(answered.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let diff = differ_one(name, expected.get(name), answered.get(name))?;
            Some(Difference {
                file: text::line(name, 300),
                diff,
            })
        })
        .collect()
}

fn differ_one(name: &str, expected: Option<&Golden>, answered: Option<&Golden>) -> Option<String> {
    match (expected, answered) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) if a.bytes == b.bytes => Some(if b.executable {
            "it is executable now, and was not expected to be".to_owned()
        } else {
            "it was expected to be executable".to_owned()
        }),
        (a, b) => {
            let (a, b) = (a.map(|g| &*g.bytes), b.map(|g| &*g.bytes));
            Some(unified(name, a.unwrap_or_default(), b.unwrap_or_default()))
        }
    }
}

/// A unified diff of two texts; of two other files that they differ.
pub(super) fn unified(name: &str, before: &[u8], after: &[u8]) -> String {
    let (Ok(old), Ok(new)) = (str::from_utf8(before), str::from_utf8(after)) else {
        return format!(
            "{} bytes were expected, {} came; they are no text",
            before.len(),
            after.len()
        );
    };
    let name = text::line(name, 300);
    let diff = TextDiff::from_lines(old, new)
        .unified_diff()
        .context_radius(3)
        .header(&format!("expected/{name}"), &format!("answered/{name}"))
        .to_string();
    text::block(&diff, 16 * 1024)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn files(list: &[(&str, &str, bool)]) -> Goldens {
        list.iter()
            .map(|(name, bytes, executable)| {
                let golden = Golden {
                    executable: *executable,
                    bytes: bytes.as_bytes().to_vec(),
                };
                ((*name).to_owned(), golden)
            })
            .collect()
    }

    #[test]
    fn what_differs_is_shown_as_a_diff_and_what_is_the_same_is_not() {
        let expected = files(&[
            ("a", "same\n", false),
            ("b", "1\n2\n", false),
            ("c", "x", false),
        ]);
        let answered = files(&[
            ("a", "same\n", false),
            ("b", "1\n3\n", false),
            ("c", "x", true),
        ]);
        let found = differ(&expected, &answered);
        let names: Vec<_> = found.iter().map(|d| d.file.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
        assert!(found[0].diff.contains("-2\n+3"), "{}", found[0].diff);
        assert!(found[1].diff.contains("executable"));
    }

    #[test]
    fn a_case_without_an_expected_answer_fails_and_says_how_to_accept_one() {
        let found = differ(&Goldens::new(), &files(&[("plan.json", "{}", false)]));
        assert!(found[0].diff.contains("--update"), "{}", found[0].diff);
    }

    #[test]
    fn what_was_written_down_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(EXPECTED);
        let first = files(&[("plan.json", "{}", false), ("tree/a/run.sh", "x", true)]);
        write_goldens(&place, &first).unwrap();
        assert_eq!(read_goldens(&place).unwrap(), first);
        let second = files(&[("error.json", "{}", false)]);
        write_goldens(&place, &second).unwrap();
        assert_eq!(read_goldens(&place).unwrap(), second);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
