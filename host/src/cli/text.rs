//! Text for people: what a terminal may be shown, and times, durations and amounts in a few characters.

use std::borrow::Cow;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Escapes control characters other than line breaks and tabs, so that text from elsewhere cannot steer the terminal.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmful(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// As [`lines`], in one line of at most `most` characters; what is cut is marked.
pub(super) fn line(text: &str, most: usize) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let safe = lines(&joined);
    if safe.chars().count() <= most {
        return safe.into_owned();
    }
    let mut cut: String = safe.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// A duration in two units at most.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

/// The time between two moments; nothing if a moment is unknown or they are the wrong way round.
pub(super) fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Duration> {
    let span: SignedDuration = to?.duration_since(from?);
    Duration::try_from(span).ok()
}

/// Dollars; an agent's job often costs less than a cent.
pub(super) fn cost(dollars: f64) -> String {
    if dollars >= 1.0 {
        format!("${dollars:.2}")
    } else {
        format!("${dollars:.4}")
    }
}

/// A moment to the second, in UTC.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_steer_the_terminal() {
        assert_eq!(lines("a\tb\nü"), "a\tb\nü");
        assert_eq!(
            lines("\u{1b}]0;owned\u{7}\u{9b}2J\r\u{7f}"),
            "\\u{1b}]0;owned\\u{7}\\u{9b}2J\\r\\u{7f}"
        );
        assert_eq!(line("one\n  two\x1b[0m", 40), "one two\\u{1b}[0m");
        assert_eq!(line("abcdef", 4), "abc…");
        assert_eq!(line("abcd", 4), "abcd");
    }

    #[test]
    fn durations_and_costs_are_short() {
        let of = |s: f64| duration(Duration::from_secs_f64(s));
        assert_eq!(of(0.04), "0.0s");
        assert_eq!(of(9.96), "10.0s");
        assert_eq!(of(59.9), "59s");
        assert_eq!(of(185.0), "3m 05s");
        assert_eq!(of(7_380.0), "2h 03m");
        assert_eq!(of(277_200.0), "3d 05h");
        assert_eq!(cost(0.01234), "$0.0123");
        assert_eq!(cost(12.345), "$12.35");
    }
}
