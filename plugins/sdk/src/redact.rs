//! Redacting plugins: the trait, and the way from the contract's function to it.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::redact_plugin::exports::agenticore::plugin::redact::Guest;
pub use crate::bindings::redact_plugin::exports::agenticore::plugin::redact::{
    Passage, PassageKind,
};
use crate::bindings::types::Job;
use crate::hooks;

/// A plugin that cleans the words of a job before they are kept and published.
///
/// It may be asked again about the same words, in a fresh instance, and must answer the same. A panic is a trap: the words are then
/// withheld if the hook is required.
pub trait Redact: Sized {
    /// The hook's `config` in `profile.yml`, `{}` where it has none.
    type Config: DeserializeOwned;

    /// Prepares for the passages of one call.
    ///
    /// # Errors
    /// What is wrong with the configuration, for people; the words are withheld then, as for a configuration that does not fit its type.
    fn new(job: &Job, config: Self::Config) -> Result<Self, String>;

    /// The passage as it may be kept; none leaves it as it is.
    fn clean(&self, passage: &Passage) -> Option<String>;
}

/// The component of a [`Redact`].
#[doc(hidden)]
#[derive(Debug)]
pub struct RedactComponent<R>(PhantomData<R>);

impl<R: Redact> Guest for RedactComponent<R> {
    #[expect(
        clippy::panic,
        reason = "the contract has no other way to refuse, and the host shows the words of a panic"
    )]
    fn redact(job: Job, config: String, passages: Vec<Passage>) -> Vec<Option<String>> {
        let prepared = hooks::parse(&config).and_then(|config| R::new(&job, config));
        match prepared {
            Ok(redact) => passages.iter().map(|p| redact.clean(p)).collect(),
            Err(problem) => panic!("{problem}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Word(String);

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        word: String,
    }

    impl Redact for Word {
        type Config = Config;

        fn new(_: &Job, config: Config) -> Result<Self, String> {
            Ok(Self(config.word))
        }

        fn clean(&self, passage: &Passage) -> Option<String> {
            let found = passage.text.contains(&self.0);
            found.then(|| passage.text.replace(&self.0, "*"))
        }
    }

    fn answers(config: &str) -> Vec<Option<String>> {
        let passage = |text: &str| Passage {
            kind: PassageKind::Output,
            text: text.to_owned(),
        };
        let passages = vec![passage("a secret"), passage("nothing")];
        RedactComponent::<Word>::redact(hooks::tests::job(), config.to_owned(), passages)
    }

    #[test]
    fn every_passage_gets_an_answer() {
        assert_eq!(
            answers(r#"{"word": "secret"}"#),
            [Some("a *".to_owned()), None]
        );
    }

    #[test]
    #[should_panic(expected = "unknown field `wrod`")]
    fn a_configuration_that_does_not_fit_withholds_the_words() {
        drop(answers(r#"{"wrod": "secret"}"#));
    }
}
