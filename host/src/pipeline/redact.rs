//! Lets the profile's redacting plugins clean what is kept and published of a job: its output, what the agent said, why it failed,
//! annotations, and the words of the pull request.
//!
//! Fails closed: where a required plugin fails, its passages are withheld. The lines of the live event stream are stored as they come and
//! are not passed here.

use super::hook::{Called, PASSED_OVER, at, name};
use super::{Attempt, Halt, Interrupt};
use crate::job::{HookUse, Verdict, Wishes};
use crate::plugin::PluginError;
use crate::plugin::types::{Passage, PassageKind};
use crate::plugins::admission::Ready;
use crate::profile::{HookPoint, HookRef, Profile};

/// What comes of a required plugin that failed.
const WITHHELD: &str = "and what it was to clean is withheld because it is required";

/// Texts on their way through the redacting plugins.
struct Passages {
    passages: Vec<Passage>,
    /// The required plugin that failed, and how.
    withheld: Option<String>,
}

impl Passages {
    fn new(texts: Vec<(PassageKind, &str)>) -> Self {
        let passage = |(kind, text): (PassageKind, &str)| Passage {
            kind,
            text: text.to_owned(),
        };
        Self {
            passages: texts.into_iter().map(passage).collect(),
            withheld: None,
        }
    }

    /// Takes the answers of one plugin.
    fn take(&mut self, answers: Vec<Option<String>>) {
        for (passage, answer) in self.passages.iter_mut().zip(answers) {
            if let Some(text) = answer {
                passage.text = text;
            }
        }
    }

    fn withhold(&mut self, hook: &HookRef, error: &PluginError) {
        let why = format!(
            "(withheld: the required hook {} failed with {})",
            name(hook),
            error.code
        );
        for passage in &mut self.passages {
            passage.text.clone_from(&why);
        }
        self.withheld = Some(why);
    }

    /// The texts in their order.
    fn texts(self) -> impl Iterator<Item = String> {
        self.passages.into_iter().map(|passage| passage.text)
    }
}

impl Attempt<'_> {
    /// Cleans what the agent's run left on the record, however it ended.
    pub(super) async fn redact_result(
        &mut self,
        profile: &Profile,
        mut ended: Result<Verdict, Halt>,
    ) -> Result<Verdict, Halt> {
        if at(profile, HookPoint::Redact).is_empty() {
            return ended;
        }
        if let Err(Halt::Interrupted(Interrupt::HandOff | Interrupt::Lost)) = &ended {
            // There is no time to ask, and the next attempt has an output of its own.
            (self.job.run.output, self.job.run.message) = (None, None);
            return ended;
        }
        let run = &self.job.run;
        let failure = match &mut ended {
            Ok(Verdict { failure }) => failure.as_mut(),
            Err(Halt::Failed(failure)) => Some(failure),
            Err(Halt::Interrupted(_)) => None,
        };
        let texts = [
            (PassageKind::Output, run.output.as_deref()),
            (PassageKind::Message, run.message.as_deref()),
            (
                PassageKind::Failure,
                failure.as_ref().map(|f| f.message.as_str()),
            ),
        ];
        let given: Vec<_> = texts
            .into_iter()
            .filter_map(|(kind, text)| Some((kind, text?)))
            .collect();
        let (redacted, uses) = self.redacted(profile, Passages::new(given)).await;
        let mut texts = redacted.texts();
        let run = &mut self.job.run;
        for text in [&mut run.output, &mut run.message].into_iter().flatten() {
            *text = texts.next().unwrap_or_default();
        }
        if let Some(failure) = failure {
            failure.message = texts.next().unwrap_or_default();
        }
        self.note_uses(uses);
        ended
    }

    /// Cleans what post hooks had to say.
    pub(super) async fn redact_review(&mut self, profile: &Profile, wishes: &mut Wishes) {
        let run = &self.job.run;
        let mut given: Vec<_> = run
            .annotations
            .values()
            .map(|text| (PassageKind::Annotation, text.as_str()))
            .collect();
        let (title, body) = (wishes.title.as_deref(), wishes.body.as_deref());
        given.extend(title.map(|text| (PassageKind::PullRequestTitle, text)));
        given.extend(body.map(|text| (PassageKind::PullRequestBody, text)));
        if given.is_empty() || at(profile, HookPoint::Redact).is_empty() {
            return;
        }
        let (redacted, uses) = self.redacted(profile, Passages::new(given)).await;
        let mut texts = redacted.texts();
        let words = [&mut wishes.title, &mut wishes.body];
        let slots = words.into_iter().flatten();
        for slot in self.job.run.annotations.values_mut().chain(slots) {
            *slot = texts.next().unwrap_or_default();
        }
        self.note_uses(uses);
    }

    /// Cleans the words of a pull request.
    ///
    /// # Errors
    /// Which required plugin failed: the words must not be published then.
    pub(super) async fn redact_pull_request(
        &self,
        profile: &Profile,
        title: String,
        body: String,
    ) -> Result<(String, String), String> {
        let given = vec![
            (PassageKind::PullRequestTitle, title.as_str()),
            (PassageKind::PullRequestBody, body.as_str()),
        ];
        let (redacted, _) = self.redacted(profile, Passages::new(given)).await;
        if let Some(why) = redacted.withheld {
            return Err(why);
        }
        let mut texts = redacted.texts();
        Ok((
            texts.next().unwrap_or_default(),
            texts.next().unwrap_or_default(),
        ))
    }

    async fn redacted(
        &self,
        profile: &Profile,
        mut passages: Passages,
    ) -> (Passages, Vec<HookUse>) {
        let mut uses = Vec::new();
        for hook in at(profile, HookPoint::Redact) {
            let called = self.clean(hook, &passages.passages).await;
            uses.push(self.hook_use(hook, HookPoint::Redact, &called, |answers| changed(answers)));
            match called.and_then(|called| called.result) {
                Ok((answers, report)) => {
                    self.tell_plugin(&name(hook), &report).await;
                    passages.take(answers);
                }
                Err(error) => {
                    let so = if hook.required { WITHHELD } else { PASSED_OVER };
                    self.tell_failed(hook, &error, so).await;
                    if hook.required {
                        passages.withhold(hook, &error);
                        break;
                    }
                }
            }
        }
        (passages, uses)
    }

    async fn clean(
        &self,
        hook: &HookRef,
        passages: &[Passage],
    ) -> Result<Called<Vec<Option<String>>>, PluginError> {
        let Ready {
            plugin, context, ..
        } = self.hook(hook).await?;
        let host = self.pod.plugins.host();
        let (job, config) = (self.for_plugins(), &hook.plugin.config);
        let result = host.redact(&plugin, &context, &job, config, passages).await;
        Ok(Called {
            digest: plugin.digest(),
            result,
        })
    }
}

fn changed(answers: &[Option<String>]) -> String {
    let changed = answers.iter().flatten().count();
    format!("{changed} of {} passages changed", answers.len())
}
