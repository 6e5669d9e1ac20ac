//! The log of the process, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// A setting of the log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error(
        "{variable} is {given:?}: {problem}; expected for example `info` or `agenticore=debug`"
    )]
    Filter {
        /// The variable it is set with.
        variable: &'static str,
        /// What was set.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The format is unknown.
    #[error("AGENTICORE_LOG_FORMAT is {0:?}: expected `text` or `json`")]
    Format(String),
}

/// Starts the log: filtered by `RUST_LOG` or `AGENTICORE_LOG` (else `info` for a server, `warn` for other commands), written as
/// text, or as one JSON object a line with `AGENTICORE_LOG_FORMAT=json`. A second call in one process changes nothing.
///
/// # Errors
/// [`TelemetryError`], which names the variable.
pub fn init(server: bool) -> Result<(), TelemetryError> {
    let filter = filter(&|name| std::env::var(name).ok(), server)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        );
    let format = std::env::var("AGENTICORE_LOG_FORMAT").unwrap_or_default();
    let started = match format.as_str() {
        "" | "text" => builder.try_init(),
        "json" => builder.json().flatten_event(true).try_init(),
        _ => return Err(TelemetryError::Format(format)),
    };
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
    Ok(())
}

fn filter(
    lookup: &dyn Fn(&str) -> Option<String>,
    server: bool,
) -> Result<EnvFilter, TelemetryError> {
    for variable in ["RUST_LOG", "AGENTICORE_LOG"] {
        if let Some(given) = lookup(variable).filter(|text| !text.is_empty()) {
            return EnvFilter::try_new(&given).map_err(|e| TelemetryError::Filter {
                variable,
                given,
                problem: e.to_string(),
            });
        }
    }
    Ok(EnvFilter::new(if server { "info" } else { "warn" }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_wins_and_a_bad_one_is_named() {
        let of = |pairs: &[(&str, &str)], server| {
            let lookup = |name: &str| {
                let found = pairs.iter().find(|(n, _)| *n == name);
                found.map(|(_, v)| (*v).to_owned())
            };
            filter(&lookup, server).map(|f| f.to_string())
        };
        assert_eq!(of(&[], true).unwrap(), "info");
        assert_eq!(of(&[("RUST_LOG", "")], false).unwrap(), "warn");
        assert_eq!(of(&[("AGENTICORE_LOG", "debug")], false).unwrap(), "debug");
        let both = [("AGENTICORE_LOG", "debug"), ("RUST_LOG", "trace")];
        assert_eq!(of(&both, false).unwrap(), "trace");
        let error = of(&[("AGENTICORE_LOG", "a=b=c")], false).unwrap_err();
        assert!(
            error.to_string().starts_with("AGENTICORE_LOG is"),
            "{error}"
        );
    }
}
