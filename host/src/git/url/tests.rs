//! Which addresses are taken, refused and shown.

#![expect(clippy::unwrap_used, reason = "tests")]
use secrecy::ExposeSecret;

use super::*;

const ANY: UrlPolicy = UrlPolicy { allow_file: true };

#[test]
fn good_addresses_are_kept_in_one_spelling() {
    for (given, kept, authority, repository) in [
        (
            "https://GitHub.com/o/r.git",
            "https://github.com/o/r.git",
            Some("github.com"),
            "o/r",
        ),
        (
            "https://github.com:443/o/r/",
            "https://github.com/o/r",
            Some("github.com"),
            "o/r",
        ),
        (
            "https://h.example:8443/a/b/c",
            "https://h.example:8443/a/b/c",
            Some("h.example:8443"),
            "a/b/c",
        ),
        (
            "http://127.0.0.1:3000/o/r",
            "http://127.0.0.1:3000/o/r",
            Some("127.0.0.1:3000"),
            "o/r",
        ),
        (
            "http://[::1]:3000/o/r",
            "http://[::1]:3000/o/r",
            Some("[::1]:3000"),
            "o/r",
        ),
        (
            "ssh://git@github.com:22/o/r.git",
            "ssh://git@github.com:22/o/r.git",
            Some("github.com:22"),
            "o/r",
        ),
        (
            "git@GitHub.com:o/r.git",
            "git@github.com:o/r.git",
            Some("github.com"),
            "o/r",
        ),
        (
            "file:///srv/git/r.git/",
            "file:///srv/git/r.git",
            None,
            "srv/git/r",
        ),
        ("file://localhost/srv/r", "file:///srv/r", None, "srv/r"),
    ] {
        let url = RepoUrl::parse(given, &ANY).unwrap();
        assert_eq!(
            (url.as_str(), url.authority(), url.repository()),
            (kept, authority, repository),
            "{given}"
        );
        assert_eq!(RepoUrl::parse(kept, &ANY).unwrap(), url, "{given}");
    }
}

#[test]
fn bad_addresses_are_refused() {
    for (given, why) in [
        ("  ", InvalidUrl::Empty),
        ("--upload-pack=touch", InvalidUrl::Option),
        ("-u", InvalidUrl::Option),
        ("ssh://-oProxyCommand=id/r", InvalidUrl::Option),
        ("-oProxyCommand=id:r", InvalidUrl::Option),
        ("git@-oProxyCommand=id:r", InvalidUrl::Option),
        ("-x@host:r", InvalidUrl::Option),
        ("host:-r", InvalidUrl::Option),
        ("ext::sh -c id", InvalidUrl::Character),
        ("ext::sh", InvalidUrl::Helper),
        ("ext::https://x/y", InvalidUrl::Helper),
        ("fd::17", InvalidUrl::Helper),
        ("https://h/a\0b", InvalidUrl::Character),
        ("https://h/a\nb", InvalidUrl::Character),
        ("https://h/a b", InvalidUrl::Character),
        ("https://h\\@evil/a", InvalidUrl::Character),
        ("git://h/a", InvalidUrl::Scheme),
        ("ftp://h/a", InvalidUrl::Scheme),
        ("/srv/git/r", InvalidUrl::Scheme),
        ("../r", InvalidUrl::Scheme),
        ("http://example.com/o/r", InvalidUrl::PlainHttp),
        ("http://127.0.0.1.example.com/o/r", InvalidUrl::PlainHttp),
        ("file://host/r", InvalidUrl::FilePath),
        ("file://r", InvalidUrl::FilePath),
        ("file:///a/../etc", InvalidUrl::FilePath),
        ("file:///a/%2e%2e/etc", InvalidUrl::Query),
        ("https:///r", InvalidUrl::Path),
        ("https://github.com", InvalidUrl::Path),
        ("git@github.com:", InvalidUrl::Path),
        ("https://h/r?private_token=x", InvalidUrl::Query),
        ("https://h/r#main", InvalidUrl::Query),
        ("https://u:p@h/r", InvalidUrl::Credentials),
        ("https://token@h/r", InvalidUrl::Credentials),
        ("ssh://git:p@h/r", InvalidUrl::Credentials),
        ("git:p@h:r", InvalidUrl::Credentials),
    ] {
        assert_eq!(RepoUrl::parse(given, &ANY), Err(why), "{given}");
    }
    assert_eq!(
        RepoUrl::parse("file:///srv/r", &UrlPolicy::default()),
        Err(InvalidUrl::File)
    );
    assert_eq!(
        RepoUrl::parse(&format!("https://h/{}", "a".repeat(3000)), &ANY),
        Err(InvalidUrl::TooLong)
    );
}

#[test]
fn credentials_are_split_off_and_never_shown() {
    let (url, credentials) = RepoUrl::split("https://me:s3cr%40et+x@github.com/o/r", &ANY).unwrap();
    let credentials = credentials.unwrap();
    assert_eq!(credentials.username.expose_secret(), "me");
    assert_eq!(credentials.password.expose_secret(), "s3cr@et+x");
    let shown = format!(
        "{url} {url:?} {} {credentials:?}",
        serde_json::to_string(&url).unwrap()
    );
    assert!(
        !shown.contains("s3cr") && url.as_str() == "https://github.com/o/r",
        "{shown}"
    );
    let stored: RepoUrl = serde_json::from_str(r#""https://ghp_abc@github.com/o/r""#).unwrap();
    assert_eq!(stored.as_str(), "https://github.com/o/r");
    assert_eq!(
        RepoUrl::parse("ssh://git@h/r", &ANY).unwrap().as_str(),
        "ssh://git@h/r"
    );
}

#[test]
fn the_key_is_the_documented_hash() {
    let url = RepoUrl::stored("https://github.com/example/repo").unwrap();
    let expected = Sha256::digest(b"https://github.com/example/repo");
    assert_eq!(
        url.key(),
        expected
            .iter()
            .take(6)
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    );
    assert_eq!(url.key().len(), 12);
}
