//! The decisions themselves: whether a version may be used, and the operator's commands.

use jiff::Timestamp;

use super::{Approval, ApprovalRule, Decisions, Disabled, Standing, Trust};
use crate::plugin::{Code, Digest, Grants, Party, PluginError};

/// Grants that a message lists.
const LISTED: usize = 16;

/// A plugin that a profile names, as far as it matters for trust.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Where its component was found.
    pub component: &'a str,
    /// What it asks for.
    pub requests: &'a Grants,
}

/// What an operator's command is about: a digest, whole or its beginning, or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This digest.
    Digest(Digest),
    /// Every version of this name.
    Name(String),
}

/// A text that names no plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownTarget(String);

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Decisions {
    /// What `text` means: a whole digest, the beginning of one that is known (at least 8 digits), or a name.
    ///
    /// # Errors
    /// [`UnknownTarget`] for a beginning that fits no version or several, and for what is neither.
    pub fn target(&self, text: &str) -> Result<Target, UnknownTarget> {
        if let Ok(digest) = text.parse() {
            return Ok(Target::Digest(digest));
        }
        let typed = text.strip_prefix("sha256:").unwrap_or(text);
        let hex = typed.bytes().all(|b| b.is_ascii_hexdigit());
        if hex && (8..64).contains(&typed.len()) {
            let typed = typed.to_ascii_lowercase();
            let fits: Vec<Digest> = self
                .approvals
                .keys()
                .filter(|digest| digest.to_string().starts_with(&typed))
                .copied()
                .collect();
            return match fits.as_slice() {
                [digest] => Ok(Target::Digest(*digest)),
                [] => Err(UnknownTarget(format!(
                    "no known version of a plugin has a digest that begins with {typed}; `agenticore plugin approvals` lists them"
                ))),
                _ => Err(UnknownTarget(format!(
                    "the digests of {} versions begin with {typed}; give more of it",
                    fits.len()
                ))),
            };
        }
        let plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if !text.is_empty() && text.len() <= 64 && text.chars().all(plain) {
            return Ok(Target::Name(text.to_owned()));
        }
        Err(UnknownTarget(format!(
            "{text:?} is neither the name of a plugin nor a sha256 digest"
        )))
    }

    /// Why this plugin is switched off, if it is.
    #[must_use]
    pub fn disabled(&self, name: &str, digest: Digest) -> Option<&Disabled> {
        let by_name = self.disabled.get(name);
        by_name.or_else(|| self.disabled.get(&digest.to_string()))
    }
}

impl Trust {
    /// Whether this plugin may be called at all.
    ///
    /// # Errors
    /// [`Code::Disabled`] with the operator's reason.
    pub fn check_enabled(&self, name: &str, digest: Digest) -> Result<(), PluginError> {
        let decisions = self.decisions()?;
        let Some(disabled) = decisions.disabled(name, digest) else {
            return Ok(());
        };
        let reason = if disabled.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", disabled.reason)
        };
        let what = &disabled.what;
        let message = format!("an operator has switched off the plugin {name} ({what}){reason}");
        let remedy = format!(
            "use another profile, or ask the operator, who can run `agenticore plugin enable {what}`"
        );
        Err(PluginError::new(Code::Disabled, message).with_remedy(Party::Operator, remedy))
    }

    /// Whether this version may be used; what is decided for the first time is written down.
    ///
    /// # Errors
    /// [`Code::Approval`] with the command that approves it, and [`Code::Host`] when the decisions cannot be read or written.
    pub fn admit(&self, subject: Subject<'_>) -> Result<(), PluginError> {
        let decisions = self.decisions()?;
        let known = decisions.approvals.get(&subject.digest);
        match known.map(|a| a.standing) {
            Some(Standing::Approved) => return Ok(()),
            Some(Standing::Revoked) => {
                let why = "its approval was revoked".to_owned();
                return Err(refusal(&subject, &why));
            }
            Some(Standing::Waiting) | None => {}
        }
        match judge(&decisions, &subject, self.rule) {
            Ok(why) => self.note(&subject, Standing::Approved, why),
            Err(why) => {
                if known.is_none() {
                    self.note(&subject, Standing::Waiting, why.clone())?;
                }
                Err(refusal(&subject, &why))
            }
        }
    }

    /// Whether the approval that a job was admitted under still stands.
    ///
    /// # Errors
    /// [`Code::Approval`] if it was revoked since.
    pub fn check_not_revoked(&self, subject: Subject<'_>) -> Result<(), PluginError> {
        let decisions = self.decisions()?;
        match decisions.approvals.get(&subject.digest) {
            Some(a) if a.standing == Standing::Revoked => {
                Err(refusal(&subject, "its approval was revoked"))
            }
            _ => Ok(()),
        }
    }

    fn note(
        &self,
        subject: &Subject<'_>,
        standing: Standing,
        why: String,
    ) -> Result<(), PluginError> {
        tracing::info!(plugin = subject.name, digest = %subject.digest, standing = standing.as_str(), why, "a version of a plugin is new");
        self.put_approval(&Approval {
            digest: subject.digest,
            name: subject.name.to_owned(),
            component: subject.component.to_owned(),
            requests: subject.requests.clone(),
            standing,
            why,
            at: Timestamp::now(),
        })
    }

    fn put_approval(&self, approval: &Approval) -> Result<(), PluginError> {
        self.put(&format!("approvals/{}.json", approval.digest), approval)
    }

    /// Approves a version, or the versions of a name that wait. A digest that nobody has used yet is approved ahead.
    ///
    /// # Errors
    /// [`UnknownTarget`] for a name without a version that waits, or what [`Trust::decisions`] fails with.
    pub fn approve(&self, target: &Target) -> anyhow::Result<Vec<Approval>> {
        self.decide(
            target,
            Standing::Approved,
            "approved by the operator",
            |a| a.standing == Standing::Waiting,
        )
    }

    /// Takes the approval of a version, or of all versions of a name, back.
    ///
    /// # Errors
    /// [`UnknownTarget`] for a name without a version that is approved, or what [`Trust::decisions`] fails with.
    pub fn revoke(&self, target: &Target) -> anyhow::Result<Vec<Approval>> {
        self.decide(target, Standing::Revoked, "revoked by the operator", |a| {
            a.standing != Standing::Revoked
        })
    }

    fn decide(
        &self,
        target: &Target,
        standing: Standing,
        why: &str,
        concerned: impl Fn(&Approval) -> bool,
    ) -> anyhow::Result<Vec<Approval>> {
        self.forget();
        let decisions = self.decisions()?;
        let mut chosen: Vec<Approval> = match target {
            Target::Digest(digest) => {
                let unseen = || Approval {
                    digest: *digest,
                    name: String::new(),
                    component: String::new(),
                    requests: Grants::default(),
                    standing,
                    why: String::new(),
                    at: Timestamp::now(),
                };
                let known = decisions.approvals.get(digest).cloned();
                vec![known.unwrap_or_else(unseen)]
            }
            Target::Name(name) => {
                let of_name = decisions.approvals.values().filter(|a| a.name == *name);
                of_name.filter(|a| concerned(a)).cloned().collect()
            }
        };
        if chosen.is_empty() {
            return Err(UnknownTarget(format!(
                "no version of a plugin {target} is concerned; `agenticore plugin approvals` lists what is known"
            ))
            .into());
        }
        for approval in &mut chosen {
            approval.standing = standing;
            approval.why = why.to_owned();
            approval.at = Timestamp::now();
            self.put_approval(approval)?;
        }
        Ok(chosen)
    }

    /// Switches a plugin off on every pod.
    ///
    /// # Errors
    /// What [`Trust::decisions`] fails with.
    pub fn disable(&self, target: &Target, reason: &str) -> Result<Disabled, PluginError> {
        let disabled = Disabled {
            what: target.to_string(),
            reason: reason.to_owned(),
            at: Timestamp::now(),
        };
        self.put(&format!("disabled/{target}.json"), &disabled)?;
        Ok(disabled)
    }

    /// Switches a plugin on again; false if it was not off.
    ///
    /// # Errors
    /// What [`Trust::decisions`] fails with.
    pub fn enable(&self, target: &Target) -> Result<bool, PluginError> {
        self.remove(&format!("disabled/{target}.json"))
            .map_err(|e| self.unusable(&e))
    }
}

/// Why a version that nobody has decided about may be used, or why it must wait.
fn judge(
    decisions: &Decisions,
    subject: &Subject<'_>,
    rule: ApprovalRule,
) -> Result<String, String> {
    if rule == ApprovalRule::Always {
        return Err(
            "every version of a plugin needs an approval here (AGENTICORE_PLUGIN_APPROVAL=always)"
                .into(),
        );
    }
    // A version is of the same plugin if it has its name or lies in its place: a new name gets nobody around an approval.
    let related: Vec<&Approval> = decisions
        .approvals
        .values()
        .filter(|a| a.digest != subject.digest)
        .filter(|a| a.name == subject.name || a.component == subject.component)
        .collect();
    if related.is_empty() {
        return Ok("the first version of this plugin here".into());
    }
    let approved: Vec<&&Approval> = related
        .iter()
        .filter(|a| a.standing == Standing::Approved)
        .collect();
    if let Some(covering) = approved
        .iter()
        .find(|a| a.requests.covers(subject.requests))
    {
        return Ok(format!(
            "it asks for no more than the approved version {}",
            covering.digest.short()
        ));
    }
    let Some(last) = approved.iter().max_by_key(|a| a.at) else {
        return Err("no version of this plugin is approved".into());
    };
    let more: Vec<String> = subject
        .requests
        .iter()
        .filter(|grant| !last.requests.allows(grant))
        .map(|grant| format!("`{grant}`"))
        .collect();
    let listed = more
        .iter()
        .take(LISTED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let rest = match more.len().saturating_sub(LISTED) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    Err(format!(
        "it asks for more than the approved version {}: {listed}{rest}",
        last.digest.short()
    ))
}

fn refusal(subject: &Subject<'_>, why: &str) -> PluginError {
    let Subject {
        name,
        digest,
        component,
        ..
    } = subject;
    let message = format!(
        "the version {} of the plugin {name} ({component}) waits for the operator's approval: {why}",
        digest.short()
    );
    let remedy = format!("the operator reviews it and runs `agenticore plugin approve {digest}`");
    PluginError::new(Code::Approval, message).with_remedy(Party::Operator, remedy)
}
