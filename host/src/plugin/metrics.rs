//! Numbers about plugins: calls, their outcome and cost, compilations, cache hits, denials.
//!
//! Whoever installs a recorder sees them; without one they cost nothing. A label's values are bounded: plugins name themselves, so beyond
//! [`MAX_NAMES`] names in the life of a process the rest count as `other`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, histogram};

use super::call::CallReport;
use super::error::PluginError;
use crate::telemetry::metrics::{
    PLUGIN_CALL, PLUGIN_CALLS, PLUGIN_COMPILE, PLUGIN_DENIALS, PLUGIN_LOADS, PLUGIN_MEMORY,
    PLUGIN_OUTPUT, PLUGIN_REFUSALS,
};

/// Names that are told apart.
const MAX_NAMES: usize = 64;
/// Stands for the names beyond.
const OTHER: &str = "other";

/// The names that metrics tell apart.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn label(&mut self, name: &str) -> String {
        if self.0.contains(name) {
            return name.to_owned();
        }
        if self.0.len() >= MAX_NAMES {
            return OTHER.to_owned();
        }
        self.0.insert(name.to_owned());
        name.to_owned()
    }
}

fn label(name: &str) -> String {
    static NAMES: Mutex<Names> = Mutex::new(Names(BTreeSet::new()));
    NAMES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .label(name)
}

/// A call came to its end.
pub(super) fn called(plugin: &str, call: &str, report: &CallReport, error: Option<&PluginError>) {
    let (plugin, call) = (label(plugin), call.to_owned());
    let outcome = error.map_or("ok", |error| error.code.as_str());
    counter!(PLUGIN_CALLS, "plugin" => plugin.clone(), "call" => call.clone(), "outcome" => outcome).increment(1);
    histogram!(PLUGIN_CALL, "plugin" => plugin.clone(), "call" => call)
        .record(report.elapsed.as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
    histogram!(PLUGIN_MEMORY, "plugin" => plugin.clone()).record(report.peak_memory as f64);
    let denied = report.denials.len() as u64;
    if denied > 0 {
        counter!(PLUGIN_DENIALS, "plugin" => plugin).increment(denied);
    }
}

/// A plan or patch was refused after the call itself went well.
pub(super) fn refused(plugin: &str, error: &PluginError) {
    counter!(PLUGIN_REFUSALS, "plugin" => label(plugin), "code" => error.code.as_str())
        .increment(1);
}

/// A plan passed all checks, with this many bytes of files.
pub(super) fn written(plugin: &str, bytes: u64) {
    counter!(PLUGIN_OUTPUT, "plugin" => label(plugin)).increment(bytes);
}

/// A component was compiled, or its code found.
pub(super) fn compiled(from_cache: bool, took: Duration) {
    let from = if from_cache { "cache" } else { "compiler" };
    counter!(PLUGIN_LOADS, "code" => from).increment(1);
    histogram!(PLUGIN_COMPILE, "code" => from).record(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;
    use crate::plugin::Code;

    /// Remembers which metrics were touched.
    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl Seen {
        fn note(&self, key: &Key) {
            let labels = key.labels().map(|l| format!(" {}={}", l.key(), l.value()));
            let text = format!("{}{}", key.name(), labels.collect::<String>());
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text);
        }
    }

    impl Recorder for Seen {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            self.note(key);
            Counter::noop()
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            self.note(key);
            Gauge::noop()
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            self.note(key);
            Histogram::noop()
        }
    }

    #[test]
    fn a_call_is_counted_under_its_plugin_and_its_outcome() {
        let seen = Seen::default();
        let report = CallReport {
            denials: vec!["wasi:sockets/tcp".to_owned()],
            ..CallReport::default()
        };
        let error = PluginError::new(Code::Network, "no");
        metrics::with_local_recorder(&seen, || {
            called("counted", "materialize", &report, Some(&error));
            compiled(true, Duration::from_millis(1));
        });
        let seen = seen.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for wanted in [
            "agenticore_plugin_calls_total plugin=counted call=materialize outcome=plugin.network",
            "agenticore_plugin_denials_total plugin=counted",
            "agenticore_plugin_loads_total code=cache",
        ] {
            assert!(seen.iter().any(|key| key == wanted), "{wanted} in {seen:?}");
        }
    }

    #[test]
    fn plugins_that_name_themselves_cannot_fill_the_metrics() {
        let mut names = Names::default();
        let labels: BTreeSet<String> = (0..1_000).map(|n| names.label(&format!("p{n}"))).collect();
        assert_eq!(labels.len(), MAX_NAMES + 1);
        assert!(labels.contains(OTHER));
        assert_eq!(names.label("p0"), "p0", "what is known stays");
    }
}
