//! What can go wrong with a plugin, as a closed set of codes.
//!
//! An error says what happened, which limit or grant was met, how much was used and allowed, who can fix it and how. The
//! same code is the exit text, the JSON field, the job record and the metric label. Guest text inside is sanitized before
//! it gets here.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

use super::call::CallReport;

/// Who can fix an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// Whoever builds the component.
    Author,
    /// Whoever writes `profile.yml`.
    Profile,
    /// Whoever runs the server.
    Operator,
    /// Whoever submits the job.
    Submitter,
}

impl Party {
    /// Who it is, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Author => "the plugin's author",
            Self::Profile => "whoever writes the profile",
            Self::Operator => "the operator",
            Self::Submitter => "the submitter",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $party:ident, $remedy:literal;)*) => {
        /// Every way a plugin can fail. The texts are stable; scripts and dashboards may match on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// All codes, for the reference table and for metrics.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable text, such as `plugin.memory`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            const fn party(self) -> Party {
                match self { $(Self::$name => Party::$party),* }
            }

            const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy),* }
            }
        }
    };
}

codes! {
    /// The file could not be read.
    File = "plugin.file", Profile, "check the path in `component:` and that the server may read it";
    /// The component has more bytes than allowed.
    Size = "plugin.size", Author, "build with optimization for size and without debug information, or ask the operator to raise the limit";
    /// The bytes are not a component.
    Format = "plugin.format", Author, "build for the target wasm32-wasip2, or wrap the module with `wasm-tools component new`";
    /// The digest differs from the pinned one.
    Digest = "plugin.digest", Profile, "restore the pinned file, or change `sha256:` in profile.yml after a review";
    /// It has more functions, modules or sections than allowed.
    Complexity = "plugin.complexity", Author, "make the component smaller, or ask the operator to raise the limit";
    /// Compilation failed.
    Compile = "plugin.compile", Author, "check the component with `wasm-tools validate`";
    /// Compilation took too long.
    CompileTime = "plugin.compile-time", Author, "make the component smaller, or ask the operator to raise the limit";
    /// It was built for a version of the contract that this host does not speak.
    Api = "plugin.api", Author, "build against the version of wit/ that the host speaks, or update the host";
    /// It imports something that the host does not offer.
    Import = "plugin.import", Author, "remove the import; a plugin may import `agenticore:plugin/host` and WASI 0.2";
    /// It lacks an export, or exports it with another type.
    Export = "plugin.export", Author, "implement the interface exactly as wit/ has it";
    /// What it says of itself is not valid.
    Describe = "plugin.describe", Author, "correct what `describe` or `config-schema` returns";
    /// A call took too long, host waits included.
    Time = "plugin.time", Author, "do less in the call, or ask the operator to raise the limit";
    /// All memories together grew too large.
    Memory = "plugin.memory", Author, "use less memory, or ask the operator to raise the limit";
    /// All tables together have too many entries.
    Tables = "plugin.tables", Author, "use fewer table entries, or ask the operator to raise the limit";
    /// Too many instances, memories or tables.
    Instances = "plugin.instances", Author, "link the component from fewer modules, or ask the operator to raise the limit";
    /// Too many resource handles at once.
    Handles = "plugin.handles", Author, "drop resources when they are no longer needed";
    /// The stack is used up.
    Stack = "plugin.stack", Author, "recurse less deeply";
    /// Too many calls into the host.
    HostCalls = "plugin.host-calls", Author, "call the host less often";
    /// Too many bytes in one call.
    Bytes = "plugin.bytes", Author, "pass less data in one call";
    /// Too many log bytes.
    Log = "plugin.log", Author, "log less";
    /// The guest panicked, exited or did something undefined.
    Trap = "plugin.trap", Author, "see the detail for the guest's own words";
    /// An earlier call of the same run failed, so there is no instance left.
    Ended = "plugin.ended", Author, "see the first error of the run";
    /// It used the network, which a plugin has not.
    Network = "plugin.network", Author, "remove the call; a plugin has no network";
    /// A path breaks a rule.
    Path = "plugin.path", Author, "use relative paths of plain names";
    /// Too many files.
    Files = "plugin.files", Author, "write fewer files, or ask the operator to raise the limit";
    /// Too many bytes to write.
    Output = "plugin.output", Author, "write less, or ask the operator to raise the limit";
    /// The plan is not well formed.
    Plan = "plugin.plan", Author, "correct the plan";
    /// An answer does not have the form that the contract asks for.
    Answer = "plugin.answer", Author, "answer exactly as wit/ says";
    /// A JSON file or argument is not strict JSON.
    Json = "plugin.json", Profile, "write strict JSON: no comments, no duplicate keys, no byte order mark, at most 64 levels";
    /// A TOML file is not one that every reader reads alike.
    Toml = "plugin.toml", Profile, "write TOML of texts, numbers, booleans, lists and tables: no dates, no key twice, at most 64 levels";
    /// A grant is missing.
    Grant = "plugin.grant", Profile, "grant it, or remove what needs it";
    /// The agent's own rules are not met.
    Policy = "plugin.policy", Author, "see the policy document of the program";
    /// The plugin says that its configuration is wrong.
    Config = "plugin.config", Profile, "correct `plugin.config` in profile.yml";
    /// The plugin says that the profile is wrong.
    ProfileInvalid = "plugin.profile", Profile, "correct the profile";
    /// The plugin says that the job asks for something the agent cannot do.
    Unsupported = "plugin.unsupported", Submitter, "change the job, or choose another profile";
    /// The plugin gave up for a reason of its own.
    Internal = "plugin.internal", Author, "see the message";
    /// An operator has switched it off.
    Disabled = "plugin.disabled", Operator, "use another profile, or ask the operator to enable the plugin";
    /// Its version asks for more than the one that was approved, or its approval was revoked.
    Approval = "plugin.approval", Operator, "review the component and approve it with `agenticore plugin approve DIGEST`";
    /// The bytes that were pinned when the job was submitted are not to be had any more.
    Pinned = "plugin.pinned", Submitter, "submit the job again, so that it is pinned to the plugin of today";
    /// A profile asks for a higher limit than the operator allows.
    Limits = "plugin.limits", Profile, "lower the value in profile.yml, or ask the operator to raise the ceiling";
    /// No key that the operator accepts signed it.
    Signature = "plugin.signature", Operator, "install it from a bundle that a key of AGENTICORE_PLUGIN_KEYS signed, or add the key of whoever signed it";
    /// A bundle is not what its manifest says, or cannot be put where it should go.
    Bundle = "plugin.bundle", Author, "pack it again with `agenticore plugin pack`";
    /// A registry does not answer, or not with what was asked for.
    Registry = "plugin.registry", Operator, "check the reference, the network and AGENTICORE_REGISTRY_USER and AGENTICORE_REGISTRY_PASSWORD";
    /// The files could not be written.
    Write = "plugin.write", Operator, "check space and permissions of the jobs directory";
    /// The host itself failed.
    Host = "plugin.host", Operator, "report it with the server's log";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A limit and how far a plugin went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitUse {
    /// The key, as in `limits:` of profile.yml.
    pub name: String,
    /// What was used or asked for, in bytes, milliseconds or pieces.
    pub used: u64,
    /// What was allowed, in the same unit.
    pub allowed: u64,
}

/// Everything an error says; [`PluginError`] is a box around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The code.
    pub code: Code,
    /// What happened, in one sentence.
    pub message: String,
    /// The limit that was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitUse>,
    /// The grant that is missing, `kind:name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Who can fix it.
    pub fixed_by: Party,
    /// How, in one sentence or command.
    pub remedy: String,
    /// The guest's own words, sanitized: its panic message or the last 4 KiB of its standard error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What the failed call used and logged, where a call was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<CallReport>,
}

/// Why a plugin could not be loaded or called, or why what it wants is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PluginError(Box<ErrorReport>);

impl std::error::Error for PluginError {}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(limit) = &self.limit {
            write!(
                f,
                " (limit {}: used {}, allowed {})",
                limit.name, limit.used, limit.allowed
            )?;
        }
        write!(f, "; {}", self.remedy)
    }
}

impl Deref for PluginError {
    type Target = ErrorReport;
    fn deref(&self) -> &ErrorReport {
        &self.0
    }
}

impl DerefMut for PluginError {
    fn deref_mut(&mut self) -> &mut ErrorReport {
        &mut self.0
    }
}

impl PluginError {
    /// An error with the remedy and the party that its code has by default.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorReport {
            code,
            message: message.into(),
            limit: None,
            grant: None,
            fixed_by: code.party(),
            remedy: code.remedy().to_owned(),
            detail: String::new(),
            report: None,
        }))
    }

    pub(crate) fn limit(
        code: Code,
        name: &str,
        used: u64,
        allowed: u64,
        message: impl Into<String>,
    ) -> Self {
        let mut error = Self::new(code, message);
        error.limit = Some(LimitUse {
            name: name.to_owned(),
            used,
            allowed,
        });
        error
    }

    pub(crate) fn with_remedy(mut self, party: Party, remedy: impl Into<String>) -> Self {
        self.fixed_by = party;
        self.remedy = remedy.into();
        self
    }
}
