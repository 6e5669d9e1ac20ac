//! Making text that a guest wrote safe to show: on a terminal, in a log line, in a record.

/// Whether a character can hide or reorder text or drive a terminal.
///
/// Control characters (C0, DEL, C1), line and paragraph separators, every format character (Unicode category Cf: zero
/// width, bidirectional, tags), the invisible fillers and noncharacters.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xAD | 0x34F | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890..=0x891 | 0x8E2 | 0x115F..=0x1160
            | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x3164
            | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0xFFFE..=0xFFFF | 0x110BD | 0x110CD | 0x13430..=0x1343F
            | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

/// One line of at most about `max` bytes: deceptive characters are escaped, what is too much is cut from the end.
pub(crate) fn line(text: &str, max: usize) -> String {
    escape(text, max, |_| false)
}

/// As [`line`], but line feeds and tabs stay.
pub(crate) fn block(text: &str, max: usize) -> String {
    escape(text, max, |c| c == '\n' || c == '\t')
}

/// The last bytes of a text, at most `max`, from the beginning of a character on.
pub(crate) fn tail(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

fn escape(text: &str, max: usize, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if out.len() >= max {
            out.push('…');
            break;
        }
        if is_deceptive(c) && !keep(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_forged_lines_become_visible_text() {
        assert_eq!(
            line("a\u{1b}[2Jb\nINFO ok\u{202e}", 100),
            "a\\u{1b}[2Jb\\nINFO ok\\u{202e}"
        );
        assert_eq!(block("a\nb\u{7}", 100), "a\nb\\u{7}");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(line("aaaaaaaaaa", 4), "aaaa…");
    }

    #[test]
    fn a_tail_begins_with_a_whole_character() {
        assert_eq!(tail("a\u{e9}b", 2), "b");
        assert_eq!(tail("a\u{e9}b", 9), "a\u{e9}b");
    }

    #[test]
    fn ordinary_text_in_any_script_stays() {
        assert_eq!(line("naïve 日本語 ~✓", 100), "naïve 日本語 ~✓");
    }
}
