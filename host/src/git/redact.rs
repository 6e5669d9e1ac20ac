//! Makes what git wrote fit for errors and logs.

/// The longest text, in characters. The end is kept: git's reason stands there.
const MAX_CHARS: usize = 600;

/// One line without credentials in addresses, without control characters and without git's idle chatter.
pub(super) fn stderr(text: &str) -> String {
    let lines = text
        .split(['\n', '\r'])
        .map(|line| line.trim_start_matches("remote:").trim())
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("hint:")
                && !line.starts_with("warning: redirecting")
        });
    let joined = lines.collect::<Vec<_>>().join("; ");
    let clean: String = joined.chars().filter(|c| !c.is_control()).collect();
    let clean = addresses(&clean);
    let skip = clean.chars().count().saturating_sub(MAX_CHARS);
    clean.chars().skip(skip).collect()
}

/// Replaces `user:password@` after every `://`.
fn addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || "'\"".contains(c))
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str("***@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_escapes_are_gone() {
        let text = "remote: Cloning\r\nfatal: unable to access 'https://me:s3c@ret@h.example/r/': \x1b[31mno\x07\nhint: try\n";
        assert_eq!(
            stderr(text),
            "Cloning; fatal: unable to access 'https://***@h.example/r/': [31mno"
        );
        assert_eq!(
            stderr("see https://a/b@c and x://y"),
            "see https://a/b@c and x://y"
        );
        assert_eq!(stderr(&"x".repeat(5000)).len(), MAX_CHARS);
    }
}
