//! What an operator should know of the Redis that was found: settings under which it forgets.

use std::collections::HashMap;

use super::Inner;

/// Warns of a Redis that drops keys when memory is short, and of one that forgets everything when it restarts.
pub(super) async fn advise(inner: &Inner) {
    let redis = inner.settings.address.shown();
    match setting(inner, "maxmemory-policy").await.as_deref() {
        None | Some("noeviction") => {}
        Some(policy) => tracing::warn!(
            redis,
            policy,
            "this Redis may drop jobs when its memory is short: set maxmemory-policy to noeviction"
        ),
    }
    let saves = setting(inner, "save").await;
    let appends = setting(inner, "appendonly").await;
    if saves.as_deref() == Some("") && appends.as_deref() == Some("no") {
        tracing::warn!(
            redis,
            "this Redis keeps nothing over a restart: jobs are put back from the volume then; set appendonly to yes"
        );
    }
    if saves.is_some_and(|saves| !saves.is_empty()) && appends.as_deref() == Some("no") {
        tracing::warn!(
            redis,
            "this Redis comes back with what it had minutes ago when it restarts after a crash: set appendonly to yes"
        );
    }
}

/// A setting of the server; none where it may not be asked, as with most hosted ones.
async fn setting(inner: &Inner, name: &str) -> Option<String> {
    let found: HashMap<String, String> = inner
        .link
        .call("look at the settings of Redis", async |c| {
            redis::cmd("CONFIG")
                .arg("GET")
                .arg(name)
                .query_async(c)
                .await
        })
        .await
        .ok()?;
    found.into_values().next()
}
