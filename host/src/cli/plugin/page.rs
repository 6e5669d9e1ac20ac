//! Pages of facts, as the commands about one plugin print them.

use std::fmt::Write as _;

use super::super::text;

/// How wide the names of facts are.
const NAMES: usize = 10;
/// Characters of one fact.
const MOST: usize = 1000;

/// Facts under each other.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Adds a fact; what a guest wrote cannot steer the terminal.
    pub(super) fn fact(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "{name:<NAMES$}  {}", text::line(value, MOST));
    }

    /// As [`Page::fact`], with the name on the first of several lines.
    pub(super) fn facts<T: AsRef<str>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        let mut name = name;
        for value in values {
            self.fact(name, value.as_ref());
            name = "";
        }
    }

    /// Adds text as it is, but for control characters.
    pub(super) fn block(&mut self, text: &str) {
        let _ = writeln!(self.0, "{}", text::lines(text.trim_end()));
    }

    /// Adds a line between parts.
    pub(super) fn gap(&mut self) {
        self.0.push('\n');
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}
