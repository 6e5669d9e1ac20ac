//! The variables of an agent's environment: a few of the host's, and what its plan asks for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::job::{Failure, FailureClass};
use crate::plugin::ResolvedEnv;

/// What every agent gets from the host's environment, and nothing else.
pub(super) fn base(temp_dir: &Path) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> = ["PATH", "HOME", "LANG", "USER", "LC_ALL", "TZ"]
        .into_iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect();
    env.entry("PATH".into())
        .or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".into());
    env.insert("TMPDIR".into(), temp_dir.into());
    env
}

/// A variable's value; none: it is not set where that is allowed.
pub(super) fn value(value: &ResolvedEnv) -> Result<Option<OsString>, Failure> {
    match value {
        ResolvedEnv::Value(value) => Ok(Some(value.clone())),
        ResolvedEnv::OptionalSecret(name) => Ok(std::env::var_os(name)),
        ResolvedEnv::Secret(name) => match std::env::var_os(name) {
            Some(value) => Ok(Some(value)),
            None => Err(Failure::new(
                FailureClass::Host,
                format!("the secret {name} does not exist on the server"),
                format!("set the variable {name} in the server's environment"),
            )),
        },
        ResolvedEnv::Inherit(name) if is_secret(name) => Err(Failure::new(
            FailureClass::Plugin,
            format!("the plugin wants to inherit the variable {name}, which looks like a secret"),
            "the plugin's author must ask for it as a secret, which the profile can grant by name",
        )),
        ResolvedEnv::Inherit(name) => Ok(std::env::var_os(name)),
    }
}

/// Whether a variable must be asked for as a secret, under a grant that names it.
fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 6] = [
        "KEY",
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "CREDENTIALS",
    ];
    let name = name.to_ascii_uppercase();
    let own = crate::config::SETTINGS
        .iter()
        .any(|s| s.secret && s.env == name);
    own || name.starts_with("AGENTICORE_") || name.split('_').any(|word| WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_inherited() {
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_TOKEN",
            "db_password",
            "AGENTICORE_API_KEYS",
            "REDIS_URL",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["HTTP_PROXY", "MAX_OUTPUT_TOKENS", "EDITOR"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
