//! Redacting plugins: they clean the words of a job before those are kept and published. New in version 1.1 of the contract.

use std::sync::Arc;

use serde_json::Value;

use super::bindings::types::{Job, Passage};
use super::call::CallReport;
use super::error::{Code, PluginError};
use super::request::CallContext;
use super::run::missing;
use super::{Plugin, PluginHost};

impl PluginHost {
    /// Lets a plugin clean these passages. The answer has as many elements; none leaves a passage as it is.
    ///
    /// # Errors
    ///
    /// Whatever ends a call, and [`Code::Answer`] for an answer of another length.
    pub async fn redact(
        &self,
        plugin: &Arc<Plugin>,
        context: &CallContext,
        job: &Job,
        config: &Value,
        passages: &[Passage],
    ) -> Result<(Vec<Option<String>>, CallReport), PluginError> {
        let Some(indices) = &plugin.indices.redact else {
            return Err(missing(plugin, "redact"));
        };
        let config = config.to_string();
        let call = self.call_hook(plugin, context, "redact", async |store, i| {
            let functions = indices.load(&mut *store, i)?;
            functions.call_redact(store, job, &config, passages).await
        });
        let (answers, report) = call.await?;
        if answers.len() != passages.len() {
            let message = format!(
                "`redact` gave {} answers to {} passages",
                answers.len(),
                passages.len()
            );
            let mut error = PluginError::new(Code::Answer, message);
            error.report = Some(report);
            return Err(error);
        }
        Ok((answers, report))
    }
}
