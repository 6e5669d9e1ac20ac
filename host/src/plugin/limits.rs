//! What a plugin may use. Operators set the values; a profile may only lower them.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::error::{Code, PluginError};

/// The limits of a plugin. Sizes are written `64MiB`, times `5s`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the component.
    #[serde(with = "size")]
    pub component_bytes: ByteSize,
    /// Functions in all modules of the component together.
    pub component_functions: u32,
    /// Sections in all modules and nested components together.
    pub component_sections: u32,
    /// Bytes of one function's body, which compilation time depends on most.
    #[serde(with = "size")]
    pub function_bytes: ByteSize,
    /// Time to compile.
    #[serde(with = "seconds")]
    pub compile_time: Duration,
    /// Stack of the guest; one value for the whole engine.
    #[serde(with = "size")]
    pub stack: ByteSize,
    /// Wall time of `describe`, `config-schema` and the start of a run, host waits included.
    #[serde(with = "seconds")]
    pub describe_time: Duration,
    /// Wall time of `materialize`, `observe` and `conclude`.
    #[serde(with = "seconds")]
    pub time: Duration,
    /// Wall time of `pre-job` and `post-job`.
    #[serde(with = "seconds")]
    pub hook_time: Duration,
    /// Bytes of all memories together.
    #[serde(with = "size")]
    pub memory: ByteSize,
    /// Core instances; as many memories and twice as many tables may exist.
    pub instances: u32,
    /// Entries of all tables together.
    pub table_entries: u32,
    /// Resource handles at one time.
    pub handles: u32,
    /// Calls into the host during one call of the guest.
    pub host_calls: u32,
    /// Bytes passed to the host in one such call.
    #[serde(with = "size")]
    pub call_bytes: ByteSize,
    /// Bytes logged during one call of the guest.
    #[serde(with = "size")]
    pub log_bytes: ByteSize,
    /// Files of a plan.
    pub files: u32,
    /// Bytes of all files of a plan together, and of its standard input.
    #[serde(with = "size")]
    pub output_bytes: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A component with the whole of Python in it has 18 MiB, and takes ten seconds to compile.
            component_bytes: ByteSize::mib(32),
            component_functions: 50_000,
            component_sections: 4_000,
            function_bytes: ByteSize::kib(512),
            compile_time: Duration::from_secs(60),
            stack: ByteSize::kib(512),
            describe_time: Duration::from_secs(1),
            time: Duration::from_secs(5),
            hook_time: Duration::from_secs(10),
            memory: ByteSize::mib(64),
            instances: 16,
            table_entries: 10_000,
            handles: 1_024,
            host_calls: 10_000,
            call_bytes: ByteSize::mib(1),
            log_bytes: ByteSize::kib(256),
            files: 2_000,
            output_bytes: ByteSize::mib(32),
        }
    }
}

/// What a stack may be: every instance has the whole of it, and no guest works with less.
const STACK: RangeInclusive<ByteSize> = ByteSize::kib(64)..=ByteSize::mib(64);

/// The operator's values, written `memory=128MiB,hook_time=20s`; what is not named keeps its start value.
impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut named = serde_json::Map::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not of the form NAME=VALUE"))?;
            let value = value.trim();
            let value = match value.parse::<u64>() {
                Ok(number) => number.into(),
                Err(_) => value.into(),
            };
            named.insert(name.trim().to_owned(), value);
        }
        let limits: Self = serde_path_to_error::deserialize(serde_json::Value::Object(named))
            .map_err(|error| {
                let name = error.path().to_string();
                format!("`{name}`: {}", error.into_inner())
            })?;
        if STACK.contains(&limits.stack) {
            Ok(limits)
        } else {
            let (least, most) = (STACK.start().as_u64(), STACK.end().as_u64());
            Err(format!("`stack`: expected from {least} to {most} bytes"))
        }
    }
}

/// The `limits:` of an entry in profile.yml. A key that is not set keeps the operator's value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsPatch {
    /// See [`Limits::time`].
    #[serde(with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub time: Option<Duration>,
    /// See [`Limits::hook_time`].
    #[serde(with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub hook_time: Option<Duration>,
    /// See [`Limits::memory`].
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// See [`Limits::instances`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// See [`Limits::table_entries`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_entries: Option<u32>,
    /// See [`Limits::handles`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handles: Option<u32>,
    /// See [`Limits::host_calls`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_calls: Option<u32>,
    /// See [`Limits::call_bytes`].
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub call_bytes: Option<ByteSize>,
    /// See [`Limits::log_bytes`].
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<ByteSize>,
    /// See [`Limits::files`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u32>,
    /// See [`Limits::output_bytes`].
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<ByteSize>,
}

impl Limits {
    /// These limits with a profile's own, which may only be lower.
    ///
    /// # Errors
    ///
    /// [`Code::Limits`], which names the key, where the profile asks for more than the operator allows.
    pub fn lower_to(&self, patch: &LimitsPatch) -> Result<Self, PluginError> {
        let mut limits = self.clone();
        lower("time", &mut limits.time, patch.time, millis)?;
        lower("hook_time", &mut limits.hook_time, patch.hook_time, millis)?;
        lower("memory", &mut limits.memory, patch.memory, |b| b.0)?;
        lower(
            "instances",
            &mut limits.instances,
            patch.instances,
            u64::from,
        )?;
        lower(
            "table_entries",
            &mut limits.table_entries,
            patch.table_entries,
            u64::from,
        )?;
        lower("handles", &mut limits.handles, patch.handles, u64::from)?;
        lower(
            "host_calls",
            &mut limits.host_calls,
            patch.host_calls,
            u64::from,
        )?;
        lower(
            "call_bytes",
            &mut limits.call_bytes,
            patch.call_bytes,
            |b| b.0,
        )?;
        lower("log_bytes", &mut limits.log_bytes, patch.log_bytes, |b| b.0)?;
        lower("files", &mut limits.files, patch.files, u64::from)?;
        lower(
            "output_bytes",
            &mut limits.output_bytes,
            patch.output_bytes,
            |b| b.0,
        )?;
        Ok(limits)
    }
}

fn lower<T: Copy + Ord>(
    name: &str,
    ceiling: &mut T,
    wanted: Option<T>,
    number: impl Fn(T) -> u64,
) -> Result<(), PluginError> {
    let Some(wanted) = wanted else { return Ok(()) };
    if wanted > *ceiling {
        let message = format!("`limits.{name}` in profile.yml is above the operator's ceiling");
        return Err(PluginError::limit(
            Code::Limits,
            name,
            number(wanted),
            number(*ceiling),
            message,
        ));
    }
    *ceiling = wanted;
    Ok(())
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes as a host's `usize`, for the engine's setters.
pub(crate) fn as_usize(bytes: ByteSize) -> usize {
    usize::try_from(bytes.0).unwrap_or(usize::MAX)
}

/// Sizes are read from `64MiB` or a number of bytes, and written as such a number: the text form of `bytesize` rounds.
mod size {
    use super::optional_size::Text;
    use bytesize::ByteSize;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(size: &ByteSize, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(size.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<ByteSize, D::Error> {
        Text::deserialize(d)?.size()
    }
}

mod optional_size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de};

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[serde(expecting = "expected a size such as `64MiB`")]
    pub(super) enum Text {
        Bytes(u64),
        Written(String),
    }

    impl Text {
        pub(super) fn size<E: de::Error>(self) -> Result<ByteSize, E> {
            match self {
                Self::Bytes(bytes) => Ok(ByteSize(bytes)),
                Self::Written(text) => text
                    .parse()
                    .map_err(|_| E::custom(format!("`{text}` is not a size such as `64MiB`"))),
            }
        }
    }

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(
        size: &Option<ByteSize>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        size.map(|size| size.0).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<ByteSize>, D::Error> {
        Option::<Text>::deserialize(d)?.map(Text::size).transpose()
    }
}

/// Times are read from `5s`, `1m 30s` or a number of seconds, and written as text.
mod seconds {
    use super::optional_seconds::Text;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        jiff::fmt::serde::unsigned_duration::friendly::compact::required::serialize(value, s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        Text::deserialize(d)?.duration()
    }
}

mod optional_seconds {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::time::Duration;

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[serde(expecting = "expected a time such as `5s`")]
    pub(super) enum Text {
        Seconds(u64),
        Written(String),
    }

    impl Text {
        pub(super) fn duration<E: de::Error>(self) -> Result<Duration, E> {
            match self {
                Self::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
                Self::Written(text) => text
                    .parse::<jiff::SignedDuration>()
                    .ok()
                    .and_then(|duration| Duration::try_from(duration).ok())
                    .ok_or_else(|| E::custom(format!("`{text}` is not a time such as `5s`"))),
            }
        }
    }

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        jiff::fmt::serde::unsigned_duration::friendly::compact::optional::serialize(value, s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<Text>::deserialize(d)?
            .map(Text::duration)
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_profile_lowers_and_never_raises() {
        let patch: LimitsPatch =
            serde_json::from_str(r#"{"memory": "32MiB", "time": "2s"}"#).unwrap();
        let limits = Limits::default().lower_to(&patch).unwrap();
        assert_eq!(
            (limits.memory, limits.time),
            (ByteSize::mib(32), Duration::from_secs(2))
        );

        let patch: LimitsPatch = serde_json::from_str(r#"{"memory": "65MiB"}"#).unwrap();
        let error = Limits::default().lower_to(&patch).unwrap_err();
        assert_eq!(error.code, Code::Limits);
        assert_eq!(error.limit.as_ref().unwrap().name, "memory");
    }

    #[test]
    fn an_operator_sets_some_and_is_told_what_is_wrong() {
        let limits: Limits = "memory=128MiB, hook_time = 20s,files=7".parse().unwrap();
        assert_eq!(
            (limits.memory, limits.hook_time, limits.files),
            (ByteSize::mib(128), Duration::from_secs(20), 7)
        );
        assert_eq!(limits.time, Limits::default().time);
        assert_eq!("".parse::<Limits>().unwrap(), Limits::default());
        for (text, says) in [
            ("memory", "NAME=VALUE"),
            ("memory=much", "`memory`"),
            ("memroy=1MiB", "memroy"),
            ("time=soon", "`soon` is not a time such as `5s`"),
            (
                "stack=18446744073709551615",
                "`stack`: expected from 65536 to",
            ),
            ("stack=1", "`stack`: expected"),
            (
                "memory=abc",
                "`memory`: `abc` is not a size such as `64MiB`",
            ),
        ] {
            let error = text.parse::<Limits>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn limits_survive_a_round_trip_and_refuse_unknown_keys() {
        let text = serde_json::to_string(&Limits::default()).unwrap();
        assert_eq!(
            serde_json::from_str::<Limits>(&text).unwrap(),
            Limits::default()
        );
        assert!(serde_json::from_str::<LimitsPatch>(r#"{"fuel": 1}"#).is_err());
    }
}
