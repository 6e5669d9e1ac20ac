//! What was measured, as a table or as JSON.

use serde_json::{Value, json};

/// One figure.
#[derive(Debug)]
pub(crate) struct Measure {
    what: String,
    value: f64,
    unit: &'static str,
    ratio: Option<(f64, String)>,
    target: Option<String>,
}

impl Measure {
    /// A figure and its unit.
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            ratio: None,
            target: None,
        }
    }

    /// Sets it beside a figure of the same run: `value / floor`.
    pub(crate) fn beside(mut self, floor: f64, what: &str) -> Self {
        self.ratio = Some((self.value / floor, what.to_owned()));
        self
    }

    /// What it should be.
    pub(crate) fn target(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }
}

/// Every figure of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, Measure)>,
}

impl Report {
    /// Adds the figures of a row.
    pub(crate) fn add(&mut self, row: &'static str, measures: Vec<Measure>) {
        self.rows
            .extend(measures.into_iter().map(|measure| (row, measure)));
    }

    /// Prints everything to standard output.
    pub(crate) fn print(&self, as_json: bool) {
        if as_json {
            println!("{:#}", self.as_json());
            return;
        }
        let (what, absolute, ratio) = ("what", "absolute (noisy)", "ratio");
        println!(
            "{:<9} {what:<46} {absolute:>18} {ratio:>8}  beside; target",
            "row"
        );
        for (row, m) in &self.rows {
            let absolute = format!("{} {}", shown(m.value), m.unit);
            let (ratio, beside) = match &m.ratio {
                Some((ratio, beside)) => (format!("{}x", shown(*ratio)), beside.as_str()),
                None => (String::new(), ""),
            };
            let target = m.target.as_deref().unwrap_or_default();
            let note = [beside, target].into_iter().filter(|text| !text.is_empty());
            let note = note.collect::<Vec<_>>().join("; ");
            println!("{row:<9} {:<46} {absolute:>18} {ratio:>8}  {note}", m.what);
        }
    }

    fn as_json(&self) -> Value {
        let row = |(row, m): &(&str, Measure)| {
            json!({
                "row": row, "what": m.what, "value": m.value, "unit": m.unit, "target": m.target,
                "ratio": m.ratio.as_ref().map(|(ratio, _)| ratio),
                "beside": m.ratio.as_ref().map(|(_, what)| what),
            })
        };
        json!({"rows": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

/// A figure with three digits that count.
fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
