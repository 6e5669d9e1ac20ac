//! The log of the process, on standard error.

use std::io::IsTerminal as _;

use json_subscriber::JsonLayer;
use tracing::Subscriber;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

/// A setting of the log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
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

/// The log: filtered by `RUST_LOG` or `AGENTICORE_LOG` (else `info` for a server, `warn` for other commands), written as text, or as one
/// JSON object a line with `AGENTICORE_LOG_FORMAT=json`. In JSON the fields of spans stand beside those of the event, so every line of a
/// job's run names the job, its pod and its trace.
///
/// # Errors
/// [`LogError`], which names the variable.
pub(super) fn layer<S>(server: bool) -> Result<Box<dyn Layer<S> + Send + Sync>, LogError>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    let filter = filter(&|name| std::env::var(name).ok(), server)?;
    let format = std::env::var("AGENTICORE_LOG_FORMAT").unwrap_or_default();
    match format.as_str() {
        "" | "text" => Ok(text().with_filter(filter).boxed()),
        "json" => Ok(json().with_filter(filter).boxed()),
        _ => Err(LogError::Format(format)),
    }
}

fn text<S>() -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        )
}

fn json<S>() -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    let mut layer = JsonLayer::stderr();
    layer
        .with_timer("timestamp", SystemTime)
        .with_level("level")
        .with_target("target")
        .with_top_level_flattened_span_list()
        .with_flattened_event();
    layer
}

fn filter(lookup: &dyn Fn(&str) -> Option<String>, server: bool) -> Result<EnvFilter, LogError> {
    for variable in ["RUST_LOG", "AGENTICORE_LOG"] {
        if let Some(given) = lookup(variable).filter(|text| !text.is_empty()) {
            return EnvFilter::try_new(&given).map_err(|e| LogError::Filter {
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
