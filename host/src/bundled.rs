//! What is part of the binary: the profiles, the policies, the plugins that were built before it, and what new plugins are made from.
//!
//! `build.rs` makes the tables; this module gives them names. What a profile means is the concern of [`crate::profile`], what a
//! policy or a component means that of [`crate::plugin`].

/// One file of the repository, as it was at build time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its path below the folder that the table is about, with `/` between the names.
    pub path: &'static str,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// Its bytes.
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// The plugin of that name is not part of this binary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", missing_plugin_text(.name, .known))]
pub struct MissingPlugin {
    /// The name that was asked for.
    pub name: String,
    /// The names of the plugins that are part of this binary, sorted.
    pub known: Vec<&'static str>,
}

/// Every file of the bundled profile folders, sorted by path; the first name of a path is the profile's.
#[must_use]
pub fn profiles() -> &'static [File] {
    PROFILES
}

/// The document `profiles/defaults.yml`: the host keys of a profile that sets none itself, the plugin among them.
#[must_use]
pub fn defaults() -> &'static str {
    DEFAULTS
}

/// The policy documents `policies/*.yml`, sorted by name.
#[must_use]
pub fn policies() -> &'static [File] {
    POLICIES
}

/// The contract with plugins, `wit/*.wit`, sorted by name.
#[must_use]
pub fn contract() -> &'static [File] {
    WIT
}

/// The source of the crate for plugins in Rust, without its manifest.
#[must_use]
pub fn sdk() -> &'static [File] {
    SDK
}

/// What new plugin projects are made from, sorted by path.
#[must_use]
pub fn templates() -> &'static [File] {
    TEMPLATES
}

/// The names of the plugins that are part of this binary, sorted.
pub fn plugin_names() -> impl Iterator<Item = &'static str> {
    PLUGINS
        .iter()
        .map(|file| file.path.trim_end_matches(".wasm"))
}

/// The component of the bundled plugin called `name`, none if this binary was built without it.
#[must_use]
pub fn plugin(name: &str) -> Option<&'static [u8]> {
    PLUGINS
        .iter()
        .find(|file| file.path.strip_suffix(".wasm") == Some(name))
        .map(|file| file.bytes)
}

/// As [`plugin`], with an error that says what to do.
///
/// # Errors
/// [`MissingPlugin`] if this binary was built without it.
pub fn require_plugin(name: &str) -> Result<&'static [u8], MissingPlugin> {
    plugin(name).ok_or_else(|| MissingPlugin {
        name: name.to_owned(),
        known: plugin_names().collect(),
    })
}

fn missing_plugin_text(name: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return format!(
            "the bundled plugin `{name}` is not part of this binary, which was built without plugins; run `cargo xtask plugins` \
             and build it again"
        );
    }
    format!(
        "the bundled plugin `{name}` is not part of this binary; it has {}. If the name is right, run `cargo xtask plugins` and \
         build it again; a component of your own is named by its file, such as `{name}.wasm`",
        known.join(", ")
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_tables_hold_what_the_repository_holds() {
        let paths: Vec<_> = profiles().iter().map(|file| file.path).collect();
        for name in [
            "code/profile.yml",
            "review/profile.yml",
            "shell/profile.yml",
        ] {
            assert!(paths.contains(&name), "{name} is missing in {paths:?}");
        }
        assert!(paths.is_sorted());
        assert!(
            !paths.iter().any(|path| path.starts_with("defaults")),
            "the defaults are no profile"
        );
        assert!(defaults().contains("plugin:"));
    }

    #[test]
    fn hostile_test_plugins_are_never_bundled() {
        assert!(plugin("test-guests").is_none());
    }

    #[test]
    fn a_missing_plugin_names_the_command_that_builds_it() {
        let error = require_plugin("no-such").unwrap_err();
        assert!(error.to_string().contains("cargo xtask plugins"), "{error}");
        let without = MissingPlugin {
            name: "x".to_owned(),
            known: Vec::new(),
        };
        assert!(
            without.to_string().contains("built without plugins"),
            "{without}"
        );
    }
}
