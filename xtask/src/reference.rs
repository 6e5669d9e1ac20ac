//! Writes `docs/plugins/reference.md` from `wit/`: the documentation of the contract is the contract.
//!
//! The files have one form, which `wit/` keeps throughout: documentation in `///`, one item after another, and a line for each field.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::gates::Checked;
use crate::sh;

const PAGE: &str = "docs/plugins/reference.md";
/// What a reader wants first; other files follow by name.
const ORDER: [&str; 4] = ["world", "hooks", "profile", "agent"];

/// Writes the page.
///
/// # Errors
/// When the contract cannot be read or the page not be written.
pub(crate) fn write() -> Result<()> {
    let page = sh::root().join(PAGE);
    fs::write(&page, page_of_contract()?)
        .with_context(|| format!("cannot write {}", page.display()))
}

/// Whether the page is what [`write()`] would write.
///
/// # Errors
/// When it is not.
pub(crate) fn check() -> Result<Checked> {
    let found = fs::read_to_string(sh::root().join(PAGE)).unwrap_or_default();
    if found == page_of_contract()? {
        return Ok(Checked::Passed);
    }
    bail!("{PAGE} is not what `wit/` says; run `cargo xtask reference`")
}

fn page_of_contract() -> Result<String> {
    let folder = sh::root().join("wit");
    let mut files = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry.context("cannot read the contract")?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let place = ORDER
            .iter()
            .position(|first| *first == name)
            .unwrap_or(ORDER.len());
        files.push((place, name, text));
    }
    files.sort();
    let mut page =
        "# Reference\n\n<!-- Written by `cargo xtask reference` from `wit/`; do not edit. -->\n"
            .to_owned();
    for (_, _, text) in &files {
        page.push_str(&chapter(text));
    }
    Ok(page)
}

/// One file of the contract.
fn chapter(wit: &str) -> String {
    let mut page = String::new();
    let mut lines = wit.lines();
    let mut doc = String::new();
    while let Some(line) = lines.next() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            let _ = writeln!(doc, "{}", words.strip_prefix(' ').unwrap_or(words));
        } else if let Some(package) = text.strip_prefix("package ") {
            let _ = write!(
                page,
                "\n`{}`\n\n{}",
                package.trim_end_matches(';'),
                std::mem::take(&mut doc)
            );
        } else if let Some(name) = text
            .strip_prefix("interface ")
            .and_then(|rest| rest.strip_suffix(" {"))
        {
            let _ = write!(
                page,
                "\n## interface `{name}`\n\n{}",
                std::mem::take(&mut doc)
            );
        } else if text.is_empty() || text.starts_with("@since") || text == "}" {
            // Versions stand in the package; the end of an interface needs no words.
        } else {
            let mut source = vec![line];
            let mut open = depth(line);
            while open > 0 {
                let Some(more) = lines.next() else { break };
                open += depth(more);
                if !more.trim().starts_with("@since") {
                    source.push(more);
                }
            }
            let _ = write!(page, "{}", item(&std::mem::take(&mut doc), &source));
        }
    }
    page
}

/// How many more braces a line opens than it closes.
fn depth(line: &str) -> i32 {
    line.chars().fold(0, |depth, letter| match letter {
        '{' => depth + 1,
        '}' => depth - 1,
        _ => depth,
    })
}

/// A type, function or world. What only names other interfaces is left out.
fn item(doc: &str, source: &[&str]) -> String {
    let Some(first) = source.first() else {
        return String::new();
    };
    let indent = first.len() - first.trim_start().len();
    let title = first.trim().trim_end_matches(" {").trim_end_matches(';');
    if title.starts_with("use ") {
        return String::new();
    }
    let title = match title.split_once(": func") {
        Some((name, _)) => format!("func `{name}`"),
        None => match title.split_once(' ') {
            Some((kind, name)) => format!("{kind} `{name}`"),
            None => title.to_owned(),
        },
    };
    let level = if indent == 0 { "##" } else { "###" };
    let body: Vec<&str> = source
        .iter()
        .map(|line| line.get(indent..).unwrap_or_default())
        .collect();
    format!(
        "\n{level} {title}\n\n{doc}\n```wit\n{}\n```\n",
        body.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_words_and_lose_their_versions() {
        let page = chapter(
            "/// All of it.\npackage a:b@1.0.0;\n\n/// Judges.\n@since(version = 1.0.0)\ninterface hooks {\n    use types.{job};\n\n    \
             /// A plan.\n    @since(version = 1.0.0)\n    record plan {\n        /// The program.\n        program: string,\n    }\n\n    \
             /// Asks.\n    @since(version = 1.0.0)\n    pre-job: func(plan: plan) -> bool;\n}\n",
        );
        assert_eq!(
            page,
            "\n`a:b@1.0.0`\n\nAll of it.\n\n## interface `hooks`\n\nJudges.\n\n### record `plan`\n\nA plan.\n\n```wit\nrecord plan {\n    \
             /// The program.\n    program: string,\n}\n```\n\n### func `pre-job`\n\nAsks.\n\n```wit\npre-job: func(plan: plan) -> bool;\n```\n"
        );
    }
}
