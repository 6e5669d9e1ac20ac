#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::testing::poll;

fn grants(names: &[&str]) -> Grants {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn trust(dir: &tempfile::TempDir) -> Trust {
    Trust::in_dir(dir.path().join("trust"), ApprovalRule::FirstUse)
}

fn subject<'a>(bytes: &str, requests: &'a Grants) -> Subject<'a> {
    Subject {
        name: "reporter",
        digest: Digest::of(bytes.as_bytes()),
        component: "/p/reporter.wasm",
        requests,
    }
}

#[test]
fn a_version_that_asks_for_more_waits_for_the_command_that_its_message_holds() {
    let dir = tempfile::tempdir().unwrap();
    let trust = trust(&dir);
    let (little, more) = (
        grants(&["program:sh"]),
        grants(&["program:sh", "settings:hooks"]),
    );
    trust.admit(subject("1", &little)).unwrap();
    // The same wishes in new bytes need nobody's word.
    trust.admit(subject("2", &little)).unwrap();

    let error = trust.admit(subject("3", &more)).unwrap_err();
    assert_eq!(error.code, Code::Approval);
    assert!(error.message.contains("`settings:hooks`"), "{error}");
    assert!(!error.message.contains("program:sh"), "{error}");
    let digest = Digest::of(b"3");
    let command = format!("agenticore plugin approve {digest}");
    assert!(error.remedy.contains(&command), "{error}");

    // Another pod sees that it waits, and the command's effect.
    let other = self::trust(&dir);
    let waiting = other.decisions().unwrap();
    assert_eq!(
        waiting.approvals.get(&digest).unwrap().standing,
        Standing::Waiting
    );
    let text = command.rsplit(' ').next().unwrap();
    other.approve(&waiting.target(text).unwrap()).unwrap();
    trust.forget();
    trust.admit(subject("3", &more)).unwrap();
    // What was approved covers what comes after it.
    trust.admit(subject("4", &more)).unwrap();
}

#[test]
fn another_name_in_the_same_place_is_still_a_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let trust = trust(&dir);
    let (little, all) = (grants(&["program:sh"]), Grants::all());
    trust.admit(subject("1", &little)).unwrap();
    let renamed = Subject {
        name: "harmless",
        ..subject("2", &all)
    };
    assert_eq!(trust.admit(renamed).unwrap_err().code, Code::Approval);
    let moved = Subject {
        component: "/elsewhere.wasm",
        ..subject("3", &all)
    };
    assert_eq!(trust.admit(moved).unwrap_err().code, Code::Approval);
    let unrelated = Subject {
        component: "/elsewhere.wasm",
        name: "other",
        ..subject("4", &all)
    };
    // It lies where a version that waits lies, and none of that place is approved.
    assert_eq!(trust.admit(unrelated).unwrap_err().code, Code::Approval);
}

#[test]
fn what_is_revoked_stays_so_until_it_is_approved_again() {
    let dir = tempfile::tempdir().unwrap();
    let trust = trust(&dir);
    let little = grants(&["program:sh"]);
    trust.admit(subject("1", &little)).unwrap();
    let name = Target::Name("reporter".into());
    trust.revoke(&name).unwrap();
    for bytes in ["1", "2"] {
        let error = trust.admit(subject(bytes, &little)).unwrap_err();
        assert_eq!(error.code, Code::Approval, "{bytes}");
    }
    let error = trust.check_not_revoked(subject("1", &little)).unwrap_err();
    assert_eq!(error.code, Code::Approval);
    assert_eq!(trust.approve(&name).unwrap().len(), 1, "the one that waits");
    trust.admit(subject("2", &little)).unwrap();
    assert!(trust.admit(subject("1", &little)).is_err());
    assert!(trust.approve(&name).is_err(), "none waits any more");
}

#[test]
fn where_every_version_needs_a_word_it_can_be_given_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let trust = Trust::in_dir(dir.path().to_owned(), ApprovalRule::Always);
    let little = grants(&["program:sh"]);
    assert!(trust.admit(subject("1", &little)).is_err());
    let ahead = Target::Digest(Digest::of(b"2"));
    trust.approve(&ahead).unwrap();
    trust.admit(subject("2", &little)).unwrap();
}

#[test]
fn a_switch_by_name_or_digest_is_seen_by_others_within_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (trust(&dir), trust(&dir));
    let digest = Digest::of(b"1");
    there.check_enabled("reporter", digest).unwrap();
    here.disable(&Target::Name("reporter".into()), "CVE-1")
        .unwrap();
    let error = poll("it is switched off", || {
        there.check_enabled("reporter", digest).err()
    });
    assert_eq!(error.code, Code::Disabled);
    assert!(error.message.contains("CVE-1"), "{error}");
    assert!(error.remedy.contains("plugin enable reporter"), "{error}");
    here.check_enabled("another", digest).unwrap();

    assert!(here.enable(&Target::Name("reporter".into())).unwrap());
    assert!(!here.enable(&Target::Name("reporter".into())).unwrap());
    here.disable(&Target::Digest(digest), "").unwrap();
    assert!(here.check_enabled("whatever", digest).is_err());
    here.check_enabled("whatever", Digest::of(b"2")).unwrap();
}

#[test]
fn a_damaged_decision_closes_the_door_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let trust = trust(&dir);
    trust.disable(&Target::Name("a".into()), "").unwrap();
    let file = dir.path().join("trust/disabled/a.json");
    fs::write(&file, "{").unwrap();
    trust.forget();
    let error = trust.check_enabled("b", Digest::of(b"1")).unwrap_err();
    assert_eq!(error.code, Code::Host);
    assert!(error.message.contains("a.json"), "{error}");
}

#[test]
fn kept_bytes_are_believed_only_with_their_digest() {
    let dir = tempfile::tempdir().unwrap();
    let trust = trust(&dir);
    let digest = Digest::of(b"bytes");
    assert!(trust.kept(digest).is_none());
    trust.keep(digest, b"bytes", None).unwrap();
    assert_eq!(&*trust.kept(digest).unwrap(), b"bytes");
    let file = dir.path().join("trust").join(component(digest));
    fs::write(&file, "swapped").unwrap();
    assert!(trust.kept(digest).is_none());
    // A pod that comes later puts them right.
    self::trust(&dir).keep(digest, b"bytes", None).unwrap();
    assert!(trust.kept(digest).is_some());
    trust.tidy(Duration::from_secs(60));
    assert!(trust.kept(digest).is_some());
    trust.tidy(Duration::ZERO);
    assert!(trust.kept(digest).is_none());
}

#[test]
fn what_a_command_is_about_is_understood_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let trust = trust(&dir);
    let little = grants(&["program:sh"]);
    trust.admit(subject("1", &little)).unwrap();
    let decisions = trust.decisions().unwrap();
    let digest = Digest::of(b"1");
    let whole = digest.to_string();
    for text in [whole.as_str(), &whole[..8], &format!("sha256:{whole}")] {
        assert_eq!(decisions.target(text).unwrap(), Target::Digest(digest));
    }
    assert_eq!(
        decisions.target("reporter").unwrap(),
        Target::Name("reporter".into())
    );
    for wrong in ["", "00000000", "../x", "A B"] {
        assert!(decisions.target(wrong).is_err(), "{wrong}");
    }
}
