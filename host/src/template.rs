//! Texts with variables in them, as profiles write them for commits and pull requests.
//!
//! The language is Jinja's, as the crate `minijinja` reads it; templates reach no file and no other template, and how much work one
//! can do is bounded.

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

/// Steps that one template may take.
const FUEL: u64 = 100_000;

/// What a template can name.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Words<'a> {
    /// The job's id.
    pub(crate) job: String,
    /// What the submitter asked for.
    pub(crate) task: &'a str,
    /// The first line of it.
    pub(crate) summary: String,
    pub(crate) profile: String,
    pub(crate) repo_url: String,
    /// The job's branch.
    pub(crate) branch: String,
    /// The branch it goes to.
    pub(crate) base: String,
    /// What the agent said at its end.
    pub(crate) output: String,
    pub(crate) model: &'a str,
    pub(crate) cost_usd: f64,
    pub(crate) turns: u32,
    pub(crate) attempt: u32,
    /// Paths that the job changed.
    pub(crate) changed_files: Vec<String>,
    /// What post hooks had to say, by key.
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

/// Checks a template without rendering it.
///
/// # Errors
/// What is wrong with it, with the names that it could use if it uses another.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let environment = environment();
    let template = environment
        .template_from_str(text)
        .map_err(|error| format!("is no template: {error}"))?;
    let known = names();
    let functions: Vec<&str> = environment.globals().map(|(name, _)| name).collect();
    let unknown: Vec<String> = template
        .undeclared_variables(false)
        .into_iter()
        .filter(|name| !known.contains(name) && !functions.contains(&name.as_str()))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "names `{}`; a template can name {}",
        unknown.join("`, `"),
        known.join(", ")
    ))
}

/// Fills a template in.
///
/// # Errors
/// What went wrong, such as too much work.
pub(crate) fn render(text: &str, words: &Words<'_>) -> Result<String, String> {
    environment()
        .render_str(text, minijinja::value::Serde(words))
        .map_err(|error| format!("{error:#}"))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment
}

/// The names that a template can use, sorted.
fn names() -> Vec<String> {
    let value = serde_json::to_value(Words::default()).unwrap_or_default();
    let mut names: Vec<String> = value
        .as_object()
        .map(|map| map.keys().cloned().collect())
        .unwrap_or_default();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn templates_are_checked_before_they_are_needed() {
        assert_eq!(check("{{ summary }} ({{ job }})"), Ok(()));
        assert_eq!(
            check("{% for file in changed_files %}{{ file }}{% endfor %}{{ annotations.risk }}"),
            Ok(())
        );
        assert!(check("{{ summary").unwrap_err().contains("no template"));
        let unknown = check("{{ sumary }}").unwrap_err();
        assert!(
            unknown.contains("`sumary`") && unknown.contains("summary"),
            "{unknown}"
        );
    }

    #[test]
    fn a_template_cannot_work_for_ever() {
        let busy = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert_eq!(check(busy), Ok(()));
        assert!(render(busy, &Words::default()).is_err());
        let words = Words {
            task: "a <b>",
            ..Words::default()
        };
        assert_eq!(render("{{ task }}", &words).unwrap(), "a <b>");
    }
}
