//! What a plugin may have: named capabilities, and their intersection.
//!
//! A plugin gets what it requests, the profile grants and the operator's ceiling allows, all three. What a capability
//! guards is not known here; see `policy.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::error::{Code, Party, PluginError};
use super::text;

/// The kinds of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantKind {
    /// Starting the program of that name.
    Program,
    /// Writing settings that make the agent run commands or change its ways.
    Settings,
    /// Configuring MCP servers of that transport.
    Mcp,
    /// Widening what the agent may do without asking.
    Permissions,
    /// Setting a guarded variable, or inheriting the host's.
    Env,
    /// Naming a secret for the agent's environment.
    Secrets,
}

impl GrantKind {
    const ALL: [Self; 6] = [
        Self::Program,
        Self::Settings,
        Self::Mcp,
        Self::Permissions,
        Self::Env,
        Self::Secrets,
    ];

    /// The word used in `kind:name` and in `grants:` of profile.yml.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Settings => "settings",
            Self::Mcp => "mcp",
            Self::Permissions => "permissions",
            Self::Env => "env",
            Self::Secrets => "secrets",
        }
    }
}

/// One capability, written `kind:name`. The name `*` stands for every name of the kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    /// The kind.
    pub kind: GrantKind,
    /// The name within the kind, or `*`.
    pub name: String,
}

impl Grant {
    /// A capability of that kind and name.
    #[must_use]
    pub fn new(kind: GrantKind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

/// A text that is not `kind:name`.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a grant: write KIND:NAME with one of the kinds program, settings, mcp, permissions, env, secrets"
)]
pub struct NotAGrant(String);

impl FromStr for Grant {
    type Err = NotAGrant;

    fn from_str(text: &str) -> Result<Self, NotAGrant> {
        let refused = || NotAGrant(text::line(text, 80));
        let (kind, name) = text.split_once(':').ok_or_else(refused)?;
        let kind = GrantKind::ALL
            .into_iter()
            .find(|k| k.as_str() == kind)
            .ok_or_else(refused)?;
        if is_name(name) {
            Ok(Self::new(kind, name))
        } else {
            Err(refused())
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name
            .chars()
            .any(|c| c.is_whitespace() || text::is_deceptive(c))
}

impl Serialize for Grant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A set of capabilities, in profile.yml a map from kind to names: `{settings: [hooks], mcp: [stdio]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Grants(BTreeMap<GrantKind, BTreeSet<String>>);

impl<'de> Deserialize<'de> for Grants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<GrantKind, BTreeSet<String>>::deserialize(deserializer)?;
        if let Some(name) = map.values().flatten().find(|name| !is_name(name)) {
            let name = text::line(name, 80);
            return Err(de::Error::custom(format!(
                "`{name}` is not the name of a grant"
            )));
        }
        Ok(Self(map))
    }
}

impl FromIterator<Grant> for Grants {
    fn from_iter<I: IntoIterator<Item = Grant>>(grants: I) -> Self {
        let mut map = BTreeMap::<_, BTreeSet<_>>::new();
        for grant in grants {
            map.entry(grant.kind).or_default().insert(grant.name);
        }
        Self(map)
    }
}

impl Grants {
    /// Every capability of every kind; only sensible as an operator's ceiling on a machine of their own.
    #[must_use]
    pub fn all() -> Self {
        GrantKind::ALL
            .into_iter()
            .map(|kind| Grant::new(kind, "*"))
            .collect()
    }

    /// Whether the set has this capability, by name or by `*`.
    #[must_use]
    pub fn allows(&self, grant: &Grant) -> bool {
        self.0
            .get(&grant.kind)
            .is_some_and(|names| names.contains("*") || names.contains(&grant.name))
    }

    /// Whether the set has this capability by its very name.
    #[must_use]
    pub fn names(&self, grant: &Grant) -> bool {
        self.0
            .get(&grant.kind)
            .is_some_and(|names| names.contains(&grant.name))
    }

    /// Whether the set has all that `other` has.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|grant| self.allows(&grant))
    }

    /// What both sets allow.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let both = self.iter().filter(|grant| other.allows(grant));
        both.chain(other.iter().filter(|grant| self.allows(grant)))
            .collect()
    }

    /// What either set allows.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.iter().chain(other.iter()).collect()
    }

    /// The capabilities, sorted by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = Grant> + '_ {
        self.0
            .iter()
            .flat_map(|(kind, names)| names.iter().map(|name| Grant::new(*kind, name.clone())))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeSet::is_empty)
    }
}

/// Which entry of profile.yml a plugin was named in, for the line that an error proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `plugin:`.
    Plugin,
    /// An entry of `hooks:`.
    Hook,
}

/// What a plugin may do in one job, and why.
#[derive(Clone, Debug, Serialize)]
pub struct EffectiveGrants {
    /// The intersection.
    pub effective: Grants,
    requested: Grants,
    profile: Grants,
    ceiling: Grants,
    role: Role,
}

impl EffectiveGrants {
    pub(crate) fn new(requested: &Grants, profile: &Grants, ceiling: &Grants, role: Role) -> Self {
        Self {
            effective: requested.intersect(profile).intersect(ceiling),
            requested: requested.clone(),
            profile: profile.clone(),
            ceiling: ceiling.clone(),
            role,
        }
    }

    pub(crate) fn allows(&self, grant: &Grant) -> bool {
        self.effective.allows(grant)
    }

    /// As [`Self::allows`], where `*` in the operator's ceiling is not enough.
    pub(crate) fn allows_exactly(&self, grant: &Grant) -> bool {
        self.allows(grant) && self.ceiling.names(grant)
    }

    /// The error for the capabilities that were needed and not granted; `what` says what needed each.
    pub(crate) fn refusal(&self, missing: &[(Grant, String)]) -> PluginError {
        let Some((first, _)) = missing.first() else {
            return PluginError::new(Code::Host, "a refusal without a missing grant");
        };
        let listed: Vec<_> = missing
            .iter()
            .take(16)
            .map(|(grant, what)| format!("{what} needs the grant `{grant}`"))
            .collect();
        let more = missing.len().saturating_sub(listed.len());
        let more = if more > 0 {
            format!(", and {more} more")
        } else {
            String::new()
        };
        let message = format!("{}{more}", listed.join(", "));
        let (party, remedy) = self.remedy(missing);
        let mut error = PluginError::new(Code::Grant, message).with_remedy(party, remedy);
        error.grant = Some(first.to_string());
        error
    }

    fn remedy(&self, missing: &[(Grant, String)]) -> (Party, String) {
        let wanted: Grants = missing.iter().map(|(grant, _)| grant.clone()).collect();
        let line = self.profile_line(&wanted);
        let lacking = |set: &Grants| {
            let names: Vec<_> = wanted
                .iter()
                .filter(|g| !set.allows(g))
                .map(|g| format!("`{g}`"))
                .collect();
            names.join(", ")
        };
        let unrequested = lacking(&self.requested);
        if !unrequested.is_empty() {
            return (
                Party::Author,
                format!(
                    "the plugin must ask for {unrequested} in `description.requests`, and profile.yml must grant it: {line}"
                ),
            );
        }
        if !lacking(&self.profile).is_empty() {
            return (Party::Profile, format!("write into profile.yml: {line}"));
        }
        let names: Vec<_> = wanted.iter().map(|g| format!("`{g}`")).collect();
        let names = names.join(", ");
        (
            Party::Operator,
            format!(
                "profile.yml has {line}, but the operator's ceiling must allow {names} too, programs without a policy and absolute paths by their very names"
            ),
        )
    }

    fn profile_line(&self, wanted: &Grants) -> String {
        let kinds: Vec<_> = wanted
            .0
            .iter()
            .map(|(kind, names)| {
                let names: Vec<_> = names.iter().map(|name| yaml_word(name)).collect();
                format!("{}: [{}]", kind.as_str(), names.join(", "))
            })
            .collect();
        let key = match self.role {
            Role::Plugin => "plugin: ",
            Role::Hook => "hooks: - ",
        };
        format!("`{key}{{grants: {{{}}}}}`", kinds.join(", "))
    }
}

fn yaml_word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}
