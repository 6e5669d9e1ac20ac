//! Variables that decide what a program loads, runs or connects to, whatever the program is.

use std::sync::LazyLock;

use super::document::{EnvRules, Globs};

/// Guarded for every program: setting one needs the grant `env:NAME`.
const GUARDED: &[&str] = &[
    // What the loader and the C library load.
    "LD_*",
    "DYLD_*",
    "GLIBC_*",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "HOSTALIASES",
    "RES_OPTIONS",
    "MALLOC_*",
    // What shells and lookups run.
    "PATH",
    "HOME",
    "SHELL",
    "ENV",
    "BASH_*",
    "ZDOTDIR",
    "IFS",
    "PS0",
    "PS1",
    "PS2",
    "PS4",
    "PROMPT_COMMAND",
    "CDPATH",
    "SHELLOPTS",
    "BASHOPTS",
    "FPATH",
    "XDG_*",
    "USER",
    "LOGNAME",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESSOPEN",
    "LESSCLOSE",
    "MANPAGER",
    "BROWSER",
    "TERMINFO*",
    "*_PAGER",
    "*_EDITOR",
    "*_COMMAND",
    "*_CMD",
    "*_HELPER",
    "*_ASKPASS",
    "*_SHELL",
    "*_PRELOAD",
    "*_WRAPPER",
    "RUSTC",
    "CC",
    "CXX",
    "AR",
    "LINKER",
    // What runtimes load.
    "NODE_*",
    "NPM_*",
    "YARN_*",
    "PNPM_*",
    "BUN_*",
    "DENO_*",
    "PYTHON*",
    "PIP_*",
    "UV_*",
    "PERL5*",
    "PERLLIB",
    "RUBY*",
    "GEM_*",
    "BUNDLE_*",
    "JAVA_*",
    "_JAVA_*",
    "JDK_*",
    "MAVEN_*",
    "GRADLE_*",
    "CLASSPATH",
    "CARGO_*",
    "RUSTFLAGS",
    "RUSTUP_*",
    "GO*",
    "DOTNET_*",
    "PHP*",
    "LUA_*",
    // Tools with commands in their variables.
    "GIT_*",
    "SSH_*",
    "GPG_*",
    "DOCKER_*",
    "KUBE*",
    "HELM_*",
    "EMACS*",
    "VIM*",
    "MAKE*",
    "MFLAGS",
    "TAR_OPTIONS",
    "RSYNC_*",
    "CURL_*",
    "WGETRC",
    // Where it connects, and whom it believes.
    "*_URL",
    "*_URI",
    "*_BASE",
    "*_ENDPOINT",
    "*_ENDPOINTS",
    "*_HOST",
    "*_PROXY",
    "*_HEADERS",
    "*_CA_*",
    "*_CERT*",
    "SSL_*",
    "TLS_*",
    "OPENSSL_*",
    "AWS_*",
    "GOOGLE_*",
    "GCLOUD_*",
    "CLOUDSDK_*",
    "AZURE_*",
];

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants, and a test builds them"
)]
static GUARDED_GLOBS: LazyLock<Globs> =
    LazyLock::new(|| Globs::of_names(GUARDED.iter().copied()).expect("constant globs"));

/// Whether setting the variable needs the grant `env:NAME`, for any program and by the rules of this one.
pub(super) fn is_guarded(name: &str, rules: Option<&EnvRules>) -> bool {
    GUARDED_GLOBS.is_match(name)
        || rules.is_some_and(|rules| rules.guarded.is_match(name) && !rules.free.is_match(name))
}

/// Whether it is a name that every shell and program can take.
pub(crate) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_run_or_redirect_things_are_guarded_in_any_case() {
        for name in [
            "LD_PRELOAD",
            "ld_library_path",
            "PATH",
            "NODE_OPTIONS",
            "BASH_ENV",
            "PYTHONSTARTUP",
            "GIT_SSH_COMMAND",
            "https_proxy",
            "HTTP_PROXY",
            "ALL_PROXY",
            "MODEL_BASE_URL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "SSL_CERT_FILE",
            "NODE_EXTRA_CA_CERTS",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "EDITOR",
            "HOME",
        ] {
            assert!(is_guarded(name, None), "{name}");
        }
        for name in [
            "TMPDIR",
            "LANG",
            "TZ",
            "FOO",
            "MAX_RETRIES",
            "DISABLE_TELEMETRY",
            "API_KEY",
        ] {
            assert!(!is_guarded(name, None), "{name}");
        }
    }

    #[test]
    fn a_policy_guards_more_and_frees_only_its_own() {
        let rules: EnvRules = serde_json::from_str(
            r#"{"guarded": ["ACME_*"], "free": ["ACME_MODEL", "LD_PRELOAD"]}"#,
        )
        .unwrap_or_default();
        assert!(is_guarded("ACME_THING", Some(&rules)));
        assert!(!is_guarded("ACME_MODEL", Some(&rules)));
        assert!(is_guarded("LD_PRELOAD", Some(&rules)));
    }

    #[test]
    fn names_are_plain() {
        assert!(is_name("_A1") && is_name("a"));
        for name in ["", "1A", "A=B", "A B", "A\0", "Ä", "A-B"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
