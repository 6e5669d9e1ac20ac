//! What plugins that launch coding agents have in common: the words they tell an agent, and what they check.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bindings::types::{
    Content, EnvValue, EnvVar, Error, ErrorCode, Exit, FileEntry, FileMode, Job, LayerFile,
    SessionStart, Source,
};

/// The requests of a plugin that carries out whatever a profile says: what it may do is for the profile's grants and the operator to bound.
pub const WHATEVER_IS_GRANTED: &[&str] = &[
    "program:*",
    "settings:*",
    "mcp:*",
    "permissions:*",
    "env:*",
    "secrets:*",
];

/// The longest task in the line about the job, in characters.
const TASK_LEN: usize = 200;

impl Job {
    /// What an agent is told to do: the task, or after a crash how to go on with it.
    #[must_use]
    pub fn prompt(&self, session: &SessionStart) -> String {
        if !matches!(session, SessionStart::Recover(_)) {
            return self.task.clone();
        }
        let check = if self.repo_url.is_some() {
            "`git status` and what it did"
        } else {
            "what it did"
        };
        format!(
            "The host restarted while you were working. Your last command may have run in part: check {check}, then continue \
             with the task where you left off. The task was: {}",
            one_line(&self.task, TASK_LEN)
        )
    }

    /// One line about the job, for an agent's instructions.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("Agenticore job {}", self.id);
        for (word, value) in [
            ("repository", &self.repo_url),
            ("branch", &self.branch),
            ("base", &self.base_ref),
        ] {
            if let Some(value) = value {
                line.push_str(&format!(", {word} {}", one_line(value, TASK_LEN)));
            }
        }
        line.push_str(&format!(", task: {}", one_line(&self.task, TASK_LEN)));
        line
    }
}

impl SessionStart {
    /// The session's id, for an agent whose sessions are UUIDs: an id becomes an argument, so it must be one that no reader takes for
    /// something else.
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] for any other; `agent` is the agent's name for people.
    pub fn uuid(&self, agent: &str) -> Result<&str, Error> {
        let id = match self {
            Self::Fresh(id) => id,
            Self::Continue(session) | Self::Recover(session) => &session.id,
        };
        let is_uuid = id.len() == 36
            && id.bytes().enumerate().all(|(n, b)| match n {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_hexdigit(),
            });
        if is_uuid {
            return Ok(id);
        }
        Err(Error {
            code: ErrorCode::Unsupported,
            message: format!(
                "the session `{}` is no UUID, and {agent} has no others",
                one_line(id, 60)
            ),
        })
    }
}

impl Error {
    /// Something in the profile's files or settings is wrong.
    #[must_use]
    pub fn profile(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::InvalidProfile,
            message: message.into(),
        }
    }

    /// Something in the configuration is wrong.
    #[must_use]
    pub fn config(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::InvalidConfig,
            message: message.into(),
        }
    }
}

impl FileEntry {
    /// A file with these bytes.
    #[must_use]
    pub fn bytes(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.to_owned(),
            content: Content::Bytes(bytes.into()),
            mode: FileMode::Regular,
        }
    }

    /// A copy of a layer's file at another path.
    #[must_use]
    pub fn copy(path: &str, layer: u32, file: &LayerFile) -> Self {
        Self {
            path: path.to_owned(),
            content: Content::Copy(Source {
                layer,
                path: file.path.clone(),
            }),
            mode: if file.executable {
                FileMode::Executable
            } else {
                FileMode::Regular
            },
        }
    }
}

impl Exit {
    /// The last lines of standard error that are not blank and that `is_telling` keeps, at most so many, as one; none: there are none.
    pub fn last_lines(&self, most: usize, is_telling: impl Fn(&str) -> bool) -> Option<String> {
        let lines = self.stderr_tail.lines().map(str::trim);
        let lines: Vec<&str> = lines
            .filter(|line| !line.is_empty() && is_telling(line))
            .collect();
        let last = lines.get(lines.len().saturating_sub(most)..)?;
        (!last.is_empty()).then(|| last.join(" "))
    }

    /// How it ended, in words: `ended with exit code 3`, `was ended by signal 9`.
    #[must_use]
    pub fn words(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        }
    }
}

/// The variables of an agent in the making, each once and sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Environment<'a>(BTreeMap<&'a str, EnvValue>);

impl<'a> Environment<'a> {
    /// Sets a variable; the last value counts.
    pub fn set(&mut self, name: &'a str, value: EnvValue) {
        self.0.insert(name, value);
    }

    /// Sets what the profile says.
    ///
    /// # Errors
    /// Where it is among the plugin's `own` variables, without which the agent would not run as planned.
    pub fn set_from_profile(
        &mut self,
        variables: &'a BTreeMap<String, String>,
        own: &BTreeMap<&str, EnvValue>,
    ) -> Result<(), Error> {
        for (name, value) in variables {
            if own.contains_key(name.as_str()) {
                return Err(Error::profile(format!(
                    "`env`: the variable {name} is set by the plugin; choose another name"
                )));
            }
            self.set(name, EnvValue::Literal(value.clone()));
        }
        Ok(())
    }

    /// Sets what the operator says, passing over what is no name of a variable.
    pub fn set_from_operator(&mut self, variables: &'a BTreeMap<String, String>) {
        for (name, value) in variables.iter().filter(|(name, _)| is_variable(name)) {
            self.set(name, EnvValue::Literal(value.clone()));
        }
    }

    /// The variables, with the plugin's `own` over them.
    #[must_use]
    pub fn with_own(mut self, own: BTreeMap<&'a str, EnvValue>) -> Vec<EnvVar> {
        self.0.extend(own);
        let var = |(name, value): (&str, EnvValue)| EnvVar {
            name: name.to_owned(),
            value,
        };
        self.0.into_iter().map(var).collect()
    }
}

/// Whether this can be the name of a variable.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A plugin and how its operator sets it, for words about settings that are wrong. Neither the profile nor the job is at fault then.
#[derive(Clone, Copy, Debug)]
pub struct OperatorSettings {
    /// The plugin's name, which is its group's below `agents` in `config.yml`.
    pub plugin: &'static str,
    /// Every setting it reads.
    pub known: &'static [&'static str],
    /// Settings that have a variable, too.
    pub variables: &'static [(&'static str, &'static str)],
}

/// What the host hands to every plugin.
const OF_THE_HOST: [&str; 2] = ["otel", "uid"];

impl OperatorSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`], with the setting that does not fit and where the operator finds it.
    pub fn read<T: DeserializeOwned>(&self, settings: &Value) -> Result<T, Error> {
        T::deserialize(settings).map_err(|error| {
            // The error does not say which; each setting by itself does.
            let fits = |(name, value): (&String, &Value)| {
                let alone = json!({ name: value });
                let error = T::deserialize(alone).err()?;
                Some(self.wrong(name, &format!("does not fit: {error}")))
            };
            let found = settings.as_object().into_iter().flatten().find_map(fits);
            found.unwrap_or_else(|| {
                let plugin = self.plugin;
                Error {
                    code: ErrorCode::Internal,
                    message: format!("the operator's settings for {plugin} are not valid: {error}"),
                }
            })
        })
    }

    /// Refuses a program that no host would start.
    ///
    /// # Errors
    /// As [`OperatorSettings::read`].
    pub fn check_program(&self, name: &str, program: Option<&String>) -> Result<(), Error> {
        match program {
            Some(program) if !is_program(program) => {
                let shown = one_line(program, 100);
                let problem = format!(
                    "is `{shown}`; it must be the name of a program or its absolute path, without arguments"
                );
                Err(self.wrong(name, &problem))
            }
            _ => Ok(()),
        }
    }

    /// What to tell of settings that the plugin does not read.
    #[must_use]
    pub fn unread(&self, settings: &Value) -> Vec<String> {
        let keys = settings.as_object().into_iter().flatten();
        let unknown = keys
            .map(|(key, _)| key.as_str())
            .filter(|key| !self.known.contains(key) && !OF_THE_HOST.contains(key));
        let known = self.known.join(", ");
        let told = |key| {
            let place = self.place(key);
            format!("nothing reads the operator's setting {place}; known are: {known}")
        };
        unknown.map(told).collect()
    }

    fn wrong(&self, name: &str, problem: &str) -> Error {
        let place = self.place(name);
        Error {
            code: ErrorCode::Internal,
            message: format!(
                "the operator's setting {place} {problem}; the operator must correct it"
            ),
        }
    }

    /// Where a setting stands.
    fn place(&self, name: &str) -> String {
        let shown = one_line(name, 60);
        let place = format!("`agents.{}.{shown}`", self.plugin);
        match self.variables.iter().find(|(setting, _)| *setting == name) {
            Some((_, variable)) => format!("{place} ({variable})"),
            None => place,
        }
    }
}

/// What the host takes for a program: a name, or a plain absolute path.
fn is_program(text: &str) -> bool {
    if text.is_empty() || text.starts_with('-') || text.contains(char::is_control) {
        return false;
    }
    match text.strip_prefix('/') {
        Some(path) => !path.split('/').any(|name| ["", ".", ".."].contains(&name)),
        None => {
            !text.contains(char::is_whitespace)
                && !text.contains('/')
                && ![".", ".."].contains(&text)
        }
    }
}

/// A text in one line of at most `len` characters.
#[must_use]
pub fn one_line(text: &str, len: usize) -> String {
    let mut line = String::new();
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty());
    for (n, word) in words.enumerate() {
        if n > 0 {
            line.push(' ');
        }
        line.push_str(word);
        // No need to go through a megabyte for one line of it.
        if line.len() > 4 * len {
            break;
        }
    }
    match line.char_indices().nth(len) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// The JSON Schema of a configuration with these properties and no others.
#[must_use]
pub fn schema(properties: Value) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

/// The schema, with the keys at the top of `profile.yml` that the plugin reads beside those of the host. The host then warns of others,
/// which are most likely slips; where a plugin does not say, it only warns of those that look like a key of its own.
#[must_use]
pub fn with_profile_keys(mut schema: Value, keys: &[&str]) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("x-profile-keys".to_owned(), json!(keys));
    }
    schema
}

/// The schema of one of these words, or nothing.
#[must_use]
pub fn one_of(words: &[&str]) -> Value {
    let words = words.iter().map(|word| json!(word));
    json!({"enum": words.chain([Value::Null]).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        assert_eq!(one_line(" a\n\tb\u{1b}[2Jc ", 99), "a b [2Jc");
        assert_eq!(one_line("ééééé", 3), "ééé…");
        assert!(one_line(&"x ".repeat(1 << 20), 10).chars().count() == 11);
    }

    #[test]
    fn a_wrong_setting_of_the_operator_is_named_with_its_place() {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default)]
        struct Own {
            timeout: Option<u32>,
        }
        let settings = OperatorSettings {
            plugin: "greeter",
            known: &["timeout", "binary"],
            variables: &[("timeout", "GREETER_TIMEOUT")],
        };
        let read = |value: &Value| settings.read::<Own>(value).map_err(|error| error.message);
        assert!(read(&json!({"timeout": 3, "other": [], "uid": 0})).is_ok());
        let place = "`agents.greeter.timeout` (GREETER_TIMEOUT)";
        let named = |message: String| message.contains(place) && message.contains("abc");
        assert!(read(&json!({"binary": "x", "timeout": "abc"})).is_err_and(named));
        assert!(read(&json!(3)).is_err_and(|message| message.contains("greeter")));

        let unread = settings.unread(&json!({"binry": "x", "timeout": 3, "otel": {}, "uid": 0}));
        assert_eq!(
            unread,
            [
                "nothing reads the operator's setting `agents.greeter.binry`; known are: timeout, binary"
            ]
        );
        for (program, good) in [
            ("claude", true),
            ("/opt/my agent/claude", true),
            ("a b", false),
            ("./claude", false),
            ("-x", false),
            ("/opt/../claude", false),
        ] {
            let checked = settings.check_program("binary", Some(&program.to_owned()));
            assert_eq!(checked.is_ok(), good, "{program}");
        }
        assert_eq!(settings.check_program("binary", None), Ok(()));
    }

    #[test]
    fn only_a_uuid_becomes_an_argument() {
        let start = |id: &str| SessionStart::Fresh(id.to_owned());
        let id = "0198c0de-0000-7000-8000-000000000001";
        assert_eq!(start(id).uuid("it"), Ok(id));
        for wrong in ["--help", "0198c0de-0000-7000-8000-00000000000x", ""] {
            assert!(start(wrong).uuid("it").is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_plugins_own_variables_win_and_the_profile_may_not_set_them() {
        let own = BTreeMap::from([("HOME", EnvValue::Literal("own".to_owned()))]);
        let text = |name: &str| BTreeMap::from([(name.to_owned(), "other".to_owned())]);
        let (theirs, operators) = (text("HOME"), text("1"));
        let mut env = Environment::default();
        let refused = env.set_from_profile(&theirs, &own);
        assert!(refused.is_err_and(|error| error.message.contains("HOME")));
        env.set_from_operator(&theirs);
        env.set_from_operator(&operators);
        let vars = env.with_own(own.clone());
        let names: Vec<_> = vars.iter().map(|v| (v.name.as_str(), &v.value)).collect();
        assert_eq!(names, [("HOME", &EnvValue::Literal("own".to_owned()))]);
    }
}
