//! The keys `pull_request` and `repository`: how the work is set up, and what becomes of it when a job has finished.

use serde_json::Value;

use super::keys::Keys;
use super::{ProfileError, Uncommitted};
use crate::template;

const PULL_REQUEST_KEYS: [&str; 7] = [
    "title",
    "body",
    "draft",
    "labels",
    "reviewers",
    "team_reviewers",
    "base",
];
const REPOSITORY_KEYS: [&str; 4] = ["uncommitted", "commit_message", "submodules", "lfs"];

/// What one document says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct DeliveryKeys {
    title: Option<String>,
    body: Option<String>,
    draft: Option<bool>,
    labels: Option<Vec<String>>,
    reviewers: Option<Vec<String>>,
    team_reviewers: Option<Vec<String>>,
    base: Option<String>,
    uncommitted: Option<Uncommitted>,
    commit_message: Option<String>,
    submodules: Option<bool>,
    lfs: Option<bool>,
}

/// What a chain adds up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The title of the pull request, a template.
    pub title: String,
    /// Its body, a template.
    pub body: String,
    /// Whether it is opened as a draft.
    pub draft: bool,
    /// Its labels.
    pub labels: Vec<String>,
    /// The users who are asked to review it.
    pub reviewers: Vec<String>,
    /// The teams who are asked to review it, by their slugs.
    pub team_reviewers: Vec<String>,
    /// The branch it goes to; none: the one that the job began at.
    pub base: Option<String>,
    /// What becomes of work that the agent did not commit.
    pub uncommitted: Uncommitted,
    /// The message of the commit that the host makes of it, a template.
    pub commit_message: String,
    /// Whether submodules are checked out before the work begins.
    pub submodules: bool,
    /// Whether files in LFS are fetched before the work begins, and pushed with it.
    pub lfs: bool,
}

const TITLE: &str = "{{ summary }}";
const COMMIT_MESSAGE: &str = "{{ summary }}\n\nJob {{ job }}.\n";
const BODY: &str = "\
{{ task }}

## What the agent says

{{ output or \"Nothing.\" }}

## The job

| | |
| --- | --- |
| job | `{{ job }}` |
| profile | `{{ profile }}` |
| model | {{ model or \"unknown\" }} |
| turns | {{ turns }} |
| cost | ${{ \"%.2f\" | format(cost_usd) }} |
| files changed | {{ changed_files | length }} |
{% for key, value in annotations | items %}
**{{ key }}**: {{ value }}
{% endfor %}";

impl DeliveryKeys {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self, ProfileError> {
        let mut read = Self::default();
        if let Some(keys) = keys.mapping("pull_request")? {
            keys.refuse_unknown(&PULL_REQUEST_KEYS)?;
            read.title = template(&keys, "title")?;
            read.body = template(&keys, "body")?;
            read.draft = keys.boolean("draft")?;
            read.labels = texts(&keys, "labels")?;
            read.reviewers = texts(&keys, "reviewers")?;
            read.team_reviewers = texts(&keys, "team_reviewers")?;
            read.base = keys.text("base")?;
        }
        if let Some(keys) = keys.mapping("repository")? {
            keys.refuse_unknown(&REPOSITORY_KEYS)?;
            read.commit_message = template(&keys, "commit_message")?;
            read.submodules = keys.boolean("submodules")?;
            read.lfs = keys.boolean("lfs")?;
            read.uncommitted = keys.choice(
                "uncommitted",
                &[
                    ("commit", Uncommitted::Commit),
                    ("leave", Uncommitted::Leave),
                    ("fail", Uncommitted::Fail),
                ],
            )?;
        }
        Ok(read)
    }

    /// Takes over what `child` sets.
    pub(super) fn lay_over(&mut self, child: &Self) {
        fn over<T: Clone>(own: &mut Option<T>, child: &Option<T>) {
            if child.is_some() {
                own.clone_from(child);
            }
        }
        over(&mut self.title, &child.title);
        over(&mut self.body, &child.body);
        over(&mut self.draft, &child.draft);
        over(&mut self.labels, &child.labels);
        over(&mut self.reviewers, &child.reviewers);
        over(&mut self.team_reviewers, &child.team_reviewers);
        over(&mut self.base, &child.base);
        over(&mut self.uncommitted, &child.uncommitted);
        over(&mut self.commit_message, &child.commit_message);
        over(&mut self.submodules, &child.submodules);
        over(&mut self.lfs, &child.lfs);
    }

    pub(super) fn resolve(self) -> Delivery {
        Delivery {
            title: self.title.unwrap_or_else(|| TITLE.to_owned()),
            body: self.body.unwrap_or_else(|| BODY.to_owned()),
            draft: self.draft.unwrap_or(false),
            labels: self.labels.unwrap_or_default(),
            reviewers: self.reviewers.unwrap_or_default(),
            team_reviewers: self.team_reviewers.unwrap_or_default(),
            base: self.base,
            uncommitted: self.uncommitted.unwrap_or_default(),
            commit_message: self
                .commit_message
                .unwrap_or_else(|| COMMIT_MESSAGE.to_owned()),
            submodules: self.submodules.unwrap_or(false),
            lfs: self.lfs.unwrap_or(false),
        }
    }
}

fn template(keys: &Keys<'_>, key: &str) -> Result<Option<String>, ProfileError> {
    let text = keys.text(key)?;
    if let Some(text) = &text
        && let Err(problem) = template::check(text)
    {
        return Err(keys.wrong(
            key,
            format!("a template, and this one {problem}"),
            &Value::from(text.as_str()),
        ));
    }
    Ok(text)
}

fn texts(keys: &Keys<'_>, key: &str) -> Result<Option<Vec<String>>, ProfileError> {
    let Some(items) = keys.list(key)? else {
        return Ok(None);
    };
    items
        .iter()
        .map(|item| {
            let text = item.as_str().filter(|text| !text.trim().is_empty());
            text.map(str::to_owned)
                .ok_or_else(|| keys.wrong(key, "a list of texts", item))
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_templates() {
        for text in [TITLE, COMMIT_MESSAGE, BODY] {
            assert_eq!(template::check(text), Ok(()), "{text}");
            assert!(
                template::render(text, &template::Words::default()).is_ok(),
                "{text}"
            );
        }
    }
}
