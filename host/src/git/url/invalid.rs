//! Why an address is refused.

/// The longest address, in bytes.
pub(super) const MAX_BYTES: usize = 2048;

/// An address that is refused. No message repeats the address, because it may hold credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Empty, or nothing but blanks.
    #[error("the repository address is empty")]
    Empty,
    /// Longer than 2048 bytes.
    #[error("the repository address is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It starts with a dash, or its host, user or path does: git or ssh would read an option.
    #[error("the repository address must not hold a part that starts with `-`")]
    Option,
    /// It holds a blank or a control character.
    #[error("the repository address must not hold blanks, control characters or backslashes")]
    Character,
    /// `helper::address`.
    #[error(
        "git remote helpers (`helper::address`) are not allowed: use https://, ssh:// or user@host:path"
    )]
    Helper,
    /// A scheme we do not know.
    #[error(
        "this kind of repository address is not supported: use https://, ssh:// or user@host:path"
    )]
    Scheme,
    /// `http://` to another machine.
    #[error(
        "http:// is only allowed to a loopback address, because it sends credentials in the clear: use https://"
    )]
    PlainHttp,
    /// `file://` where the server does not allow it.
    #[error(
        "file:// addresses are only allowed on a local server; this one listens to others: push the repository to a git host"
    )]
    File,
    /// `file://host/path` or a relative path.
    #[error("a file:// address needs an absolute path, such as file:///home/me/project")]
    FilePath,
    /// There is no host.
    #[error("the repository address has no valid host")]
    Host,
    /// There is no path.
    #[error("the repository address names no repository: it ends after the host")]
    Path,
    /// It has a query or a fragment.
    #[error("the repository address must not have a query (`?`) or a fragment (`#`)")]
    Query,
    /// It holds a password or token.
    #[error(
        "the repository address holds credentials: leave them out and give the server a token (GITHUB_TOKEN) instead"
    )]
    Credentials,
}
