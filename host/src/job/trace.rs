//! The place of a job in a trace, as the W3C's Trace Context writes it.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The longest `tracestate` that is handed on, in bytes; the standard asks for at least this much.
const MAX_STATE: usize = 512;

/// A span of a trace that other spans can belong to: the headers `traceparent` and `tracestate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: Option<String>,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// The beginning of a trace that nobody records.
    #[must_use]
    pub fn unrecorded() -> Self {
        let trace = Uuid::new_v4().simple();
        let span = Uuid::new_v4().simple().to_string();
        Self {
            parent: format!("00-{trace}-{}-00", span.get(..16).unwrap_or_default()),
            state: None,
        }
    }

    /// With the vendors' part, as long as it can be handed on.
    #[must_use]
    pub fn with_state(mut self, state: Option<&str>) -> Self {
        let fits = |text: &&str| {
            !text.trim().is_empty()
                && text.len() <= MAX_STATE
                && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        self.state = state.filter(fits).map(|text| text.trim().to_owned());
        self
    }

    /// The value of `traceparent`.
    #[must_use]
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The value of `tracestate`, if there is one.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.parent.get(3..35).unwrap_or_default()
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    /// Versions after 00 may add fields after the fourth; those are left out, as the standard says.
    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let text = text.trim();
        let mut parts = text.split('-');
        let mut next = || parts.next().unwrap_or_default();
        let (version, trace, span, flags) = (next(), next(), next(), next());
        let more = parts.next().is_some();
        let valid = is_hex(version, 2)
            && version != "ff"
            && is_hex(trace, 32)
            && !is_zero(trace)
            && is_hex(span, 16)
            && !is_zero(span)
            && is_hex(flags, 2)
            && (version != "00" || !more);
        if !valid {
            return Err(InvalidTraceparent);
        }
        Ok(Self {
            parent: format!("00-{trace}-{span}-{flags}"),
            state: None,
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parent)
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_parts_of_a_traceparent_are_checked() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert_eq!(context.parent(), GOOD);
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        let newer = format!("01{}-more", GOOD.get(2..).unwrap());
        assert_eq!(newer.parse::<TraceContext>().unwrap().parent(), GOOD);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(InvalidTraceparent));
        }
    }

    #[test]
    fn a_trace_that_nobody_records_is_valid_and_says_so() {
        let context = TraceContext::unrecorded();
        let again: TraceContext = context.parent().parse().unwrap();
        assert_eq!(again, context);
        assert!(context.parent().ends_with("-00"));
        assert_ne!(TraceContext::unrecorded(), context);
    }

    #[test]
    fn a_state_that_no_header_or_variable_can_carry_is_left_out() {
        let context: TraceContext = GOOD.parse().unwrap();
        let state = |text: &str| context.clone().with_state(Some(text));
        assert_eq!(state("a=1,b=2").state(), Some("a=1,b=2"));
        for bad in ["", " ", "a=\n1", &"a".repeat(513)] {
            assert_eq!(state(bad).state(), None);
        }
    }
}
