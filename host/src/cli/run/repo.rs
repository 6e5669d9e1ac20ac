//! A repository as people type it: a URL stays as it is, a local path becomes the `file://` URL of its repository.

use std::path::Path;

use url::Url;

use super::UsageError;

/// The address to submit for what was typed.
pub(super) fn address(typed: &str) -> anyhow::Result<String> {
    if !is_path(typed) {
        return Ok(typed.to_owned());
    }
    let wrong = |problem: String| UsageError(format!("the repository {typed:?} {problem}"));
    let path = std::fs::canonicalize(typed).map_err(|e| wrong(format!("cannot be opened: {e}")))?;
    let root = path
        .ancestors()
        .find(|folder| is_repository(folder))
        .ok_or_else(|| {
            wrong("is not in a git repository; for other addresses write the whole URL".into())
        })?;
    let url =
        Url::from_file_path(root).map_err(|()| wrong("has a path that no URL can name".into()))?;
    Ok(url.into())
}

/// `.`, `..`, anything that begins like a path, or the name of a folder that is here. `host:path` is an address of git.
fn is_path(typed: &str) -> bool {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|p| typed.starts_with(p));
    matches!(typed, "." | "..")
        || begins(&["/", "./", "../"])
        || (!typed.contains(':') && Path::new(typed).is_dir())
}

/// A working tree (`.git` is a folder, or a file in a worktree) or a bare repository.
fn is_repository(folder: &Path) -> bool {
    folder.join(".git").exists()
        || (folder.join("HEAD").is_file() && folder.join("objects").is_dir())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_path_becomes_the_url_of_its_repository() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap().join("my repo");
        std::fs::create_dir_all(root.join(".git")).unwrap();
        std::fs::create_dir_all(root.join("src/deep")).unwrap();
        let expected = Url::from_file_path(&root).unwrap().to_string();
        for below in ["", "src/deep"] {
            let typed = root.join(below);
            assert_eq!(address(typed.to_str().unwrap()).unwrap(), expected);
        }
        assert!(expected.ends_with("/my%20repo"), "{expected}");
    }

    #[test]
    fn addresses_stay_as_they_are() {
        for url in [
            "https://example.org/a/b",
            "git@example.org:a/b",
            "file:///srv/x",
            "ext::sh -c id",
            "--upload-pack=x",
        ] {
            assert_eq!(address(url).unwrap(), url);
        }
    }

    #[test]
    fn a_path_without_a_repository_is_refused_here() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none");
        for path in [missing.to_str().unwrap(), "/"] {
            let error = address(path).unwrap_err();
            assert!(error.is::<UsageError>(), "{error}");
        }
    }
}
