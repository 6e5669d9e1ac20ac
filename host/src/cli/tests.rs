//! Whole commands against a fake server, and what their help says.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::CommandFactory as _;
use serde_json::Value;

use super::attend::{Cut as End, leave, until_cut};
use super::events::View;
use super::follow::{Show, Viewer};
use super::*;
use crate::client::fake::{AWAY, Cut, Fake, ID};
use crate::job::{Event, EventBody, LogStream, Status};

const OTHER: &str = "0b6ad2ff-6d0a-4f0e-9a49-3d7f4b8f2c12";

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A reader that went away.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a command line against a server: the exit code, standard output, standard error.
async fn command(server: &str, line: &str) -> (u8, String, String) {
    let line = format!("agenticore {line} --server {server} --api-key k");
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    let (data, notes) = (Captured::default(), Captured::default());
    let output = Output::captured(cli.globals.format(), data.clone(), notes.clone());
    let code = run_with(cli.command, &Context::new(cli.globals, output)).await;
    (code as u8, data.text(), notes.text())
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn help_texts() {
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut commands = vec![cli];
    let mut shown = 0;
    while let Some(mut command) = commands.pop() {
        let name = command
            .get_bin_name()
            .unwrap_or("agenticore")
            .replace(' ', "-");
        let help = command.render_long_help().to_string();
        insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(name, help);
        });
        shown += 1;
        let subs = command.get_subcommands().filter(|c| c.get_name() != "help");
        commands.extend(subs.cloned().map(|c| c.term_width(100)));
    }
    assert!(shown > 15, "{shown}");
}

#[tokio::test]
async fn run_prints_the_id_and_how_to_follow() {
    let fake = Fake::start().await;
    let (code, data, notes) = command(&fake.url(), "run hello -p shell").await;
    assert_eq!((code, data), (0, format!("{ID}\n")));
    assert!(notes.contains("agenticore logs -f 0b6ad2a4"), "{notes}");
    assert_eq!(
        fake.world.bodies.lock().unwrap().first().unwrap()["profile"],
        "shell"
    );
    let (_, data, notes) = command(&fake.url(), "run hello -o id").await;
    assert_eq!((data, notes), (format!("{ID}\n"), String::new()));
}

#[tokio::test]
async fn run_wait_shows_the_log_as_it_came_and_ends_like_the_job() {
    for (status, expected) in [
        (Status::Succeeded, 0),
        (Status::Failed, 1),
        (Status::Cancelled, 3),
        (Status::Expired, 3),
    ] {
        let fake = Fake::start().await;
        fake.job(ID, &["one\r\n", "\u{1b}[1mtwo"], Some(status));
        fake.cut(&[Cut::Close(1)]);
        let (code, data, notes) = command(&fake.url(), "run hello --wait").await;
        assert_eq!(code, expected, "{notes}");
        assert_eq!(data, "one\r\n\u{1b}[1mtwo\n");
        assert!(
            notes.contains("[stream] lost, trying again: the server closed the stream"),
            "{notes}"
        );
        assert!(notes.ends_with(&format!("{status}\n")), "{notes}");
    }
}

#[tokio::test]
async fn run_wait_json_is_the_record_alone() {
    let fake = Fake::start().await;
    fake.job(ID, &["hello"], Some(Status::Succeeded));
    let (code, data, notes) = command(&fake.url(), "run hello --wait --json").await;
    assert_eq!(code, 0);
    let record: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (record["id"].as_str(), record["status"].as_str()),
        (Some(ID), Some("succeeded"))
    );
    assert!(notes.contains("hello\n"), "{notes}");
}

#[tokio::test]
async fn waiting_ends_when_its_time_is_over() {
    let fake = Fake::start().await;
    fake.job(ID, &["hello"], None);
    for line in [
        format!("wait {ID} --timeout 0"),
        "run hello -w --timeout 0".into(),
        format!("logs -f {ID} --timeout 0"),
    ] {
        let (code, _, notes) = command(&fake.url(), &line).await;
        assert_eq!(code, 6, "{line}: {notes}");
        assert!(notes.contains("agenticore cancel 0b6ad2a4"), "{notes}");
    }
    assert!(!fake.requests().iter().any(|r| r.starts_with("DELETE")));
}

#[tokio::test]
async fn an_interruption_detaches_and_cancels_only_when_told_to() {
    for (cancel, words, asked) in [
        (false, "agenticore logs -f 0b6ad2a4", 0),
        (true, "is cancelled", 1),
    ] {
        let fake = Fake::start().await;
        fake.job(ID, &[], None);
        let line = format!("agenticore status --server {} --api-key k", fake.url());
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let notes = Captured::default();
        let output = Output::captured(Format::Table, io::sink(), notes.clone());
        let context = Context::new(cli.globals, output);
        let client = context.client().unwrap();
        let code = leave(&context, &client, ID, cancel, End::Interrupted)
            .await
            .unwrap();
        assert_eq!(code as u8, 130);
        assert!(notes.text().contains(words), "{}", notes.text());
        let cancels = fake
            .requests()
            .iter()
            .filter(|r| r.starts_with("DELETE"))
            .count();
        assert_eq!(cancels, asked);
    }
}

#[tokio::test]
async fn what_is_cut_short_is_dropped() {
    let cut = until_cut(
        Some(std::time::Duration::ZERO),
        std::future::pending::<()>(),
    )
    .await
    .unwrap();
    assert!(matches!(cut, Err(End::TimedOut)));
    assert!(matches!(until_cut(None, async { 7 }).await.unwrap(), Ok(7)));
}

#[tokio::test]
async fn logs_stop_at_the_last_stored_event() {
    let fake = Fake::start().await;
    fake.job(ID, &["a", "b", "c"], None);
    let (code, data, _) = command(&fake.url(), "logs @last").await;
    assert_eq!((code, data.as_str()), (0, "a\nb\nc\n"));
    let (_, data, _) = command(&fake.url(), &format!("logs --after 2 {ID} --json")).await;
    let event: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (event["seq"].as_u64(), event["text"].as_str()),
        (Some(3), Some("c"))
    );
    fake.job(ID, &["a", "b"], Some(Status::Failed));
    let (code, data, _) = command(&fake.url(), &format!("logs -f {ID}")).await;
    assert_eq!(
        (code, data.as_str()),
        (0, "a\nb\n"),
        "the log was shown, whatever became of the job"
    );
}

#[tokio::test]
async fn wait_ends_like_the_job() {
    let fake = Fake::start().await;
    fake.job(ID, &["hello"], Some(Status::Failed));
    let (code, data, notes) = command(&fake.url(), "wait 0b6ad2a4").await;
    assert_eq!((code, data.as_str(), notes.as_str()), (1, "", "failed\n"));
}

#[tokio::test]
async fn ids_may_be_short() {
    let fake = Fake::start().await;
    fake.job(ID, &[], None);
    fake.job(OTHER, &[], None);
    let job = async |id: &str| command(&fake.url(), &format!("job {id} -o id")).await;
    assert_eq!(job("0B6AD2A4").await.1, format!("{ID}\n"));
    assert_eq!(job("@last").await.1, format!("{OTHER}\n"));
    assert_eq!(job("0b6ad2").await.0, 2, "two jobs begin like this");
    assert_eq!(job("ffffffff").await.0, 5);
    let before = fake.requests().len();
    for bad in ["../x", "@first", "zz"] {
        assert_eq!(job(bad).await.0, 2, "{bad}");
    }
    assert_eq!(
        fake.requests().len(),
        before,
        "nothing was asked for what cannot be an id"
    );
}

#[tokio::test]
async fn at_last_needs_a_job() {
    let fake = Fake::start().await;
    let (code, _, notes) = command(&fake.url(), "job @last").await;
    assert_eq!(code, 5);
    assert!(notes.contains("the server has none"), "{notes}");
}

#[tokio::test]
async fn jobs_come_over_several_pages_as_a_bare_array() {
    let fake = Fake::start().await;
    for n in 0..5 {
        fake.job(&ID.replace('0', &n.to_string()), &[], None);
    }
    let (code, data, _) = command(
        &fake.url(),
        "jobs --json -n 4 -s running,queued --profile shell",
    )
    .await;
    let jobs: Vec<Value> = serde_json::from_str(&data).unwrap();
    assert_eq!((code, jobs.len()), (0, 4));
    let first = fake.requests().into_iter().next().unwrap();
    assert_eq!(
        first,
        "GET /jobs?limit=4&status=running&status=queued&profile=shell"
    );
    let (_, data, _) = command(&fake.url(), "jobs -o jsonl").await;
    assert_eq!(data.lines().count(), 5);
    let (_, data, _) = command(&fake.url(), "jobs").await;
    let first: Vec<&str> = data.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        first,
        ["ID", "STATUS", "PROFILE", "POD", "CREATED", "TOOK", "TASK"]
    );
    assert!(
        data.is_ascii() && data.lines().all(|l| !l.starts_with(' ')),
        "plain columns:\n{data}"
    );
}

#[tokio::test]
async fn cancel_goes_on_after_a_failure_and_reports_it() {
    let fake = Fake::start().await;
    fake.job(ID, &[], None);
    let (code, data, notes) = command(&fake.url(), "cancel ffffffff 0b6ad2a4 --json").await;
    let records: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (code, records[0]["status"].as_str()),
        (5, Some("cancelled"))
    );
    assert!(notes.contains("ffffffff: no such job"), "{notes}");
}

#[tokio::test]
async fn cancel_says_what_to_do_while_the_store_is_away() {
    let fake = Fake::start().await;
    let (code, _, notes) = command(&fake.url(), &format!("cancel {AWAY} {AWAY}")).await;
    assert_eq!(code, 1);
    assert_eq!(notes.matches("once Redis answers").count(), 1, "{notes}");
}

#[tokio::test]
async fn failures_have_their_exit_codes() {
    let fake = Fake::start().await;
    *fake.world.key.lock().unwrap() = Some("other".into());
    let (code, _, notes) = command(&fake.url(), "jobs").await;
    assert_eq!(code, 4);
    assert!(notes.contains("AGENTICORE_API_KEY"), "{notes}");
    *fake.world.key.lock().unwrap() = None;
    assert_eq!(command(&fake.url(), "run refuse").await.0, 2);
    assert_eq!(command(&fake.url(), "profiles").await.0, 0);
    assert_eq!(command(&fake.url(), "status").await.0, 0);
    assert_eq!(command("ftp://x", "jobs").await.0, 2);
    let url = fake.url();
    fake.stop().await;
    let (code, _, notes) = command(&url, "run hello --wait").await;
    assert_eq!(code, 7);
    assert!(
        notes.contains("agenticore serve") && notes.contains("--local"),
        "{notes}"
    );
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::start().await;
    fake.job(ID, &["a", "b"], Some(Status::Failed));
    let run = async |line: &str| {
        let line = format!("agenticore {line} --server {} --api-key k", fake.url());
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let output = Output::captured(cli.globals.format(), Closed, io::sink());
        run_with(cli.command, &Context::new(cli.globals, output)).await
    };
    assert_eq!(run("jobs").await, ExitCode::Success);
    assert_eq!(run(&format!("logs -f {ID}")).await, ExitCode::Success);
    assert_eq!(
        run("run x --wait").await,
        ExitCode::Failed,
        "who waits still wants the job's code"
    );
}

#[test]
fn log_text_is_escaped_on_a_terminal_only() {
    let event = Event {
        seq: 1,
        ts: "2026-11-22T10:00:00Z".parse().unwrap(),
        body: EventBody::Log {
            stream: LogStream::Agent,
            text: "a\t\u{1b}]52;c;x\u{7}".into(),
        },
    };
    assert!(matches!(events::view(&event), View::Log(_)));
    for (terminal, expected) in [
        (false, "a\t\u{1b}]52;c;x\u{7}\n"),
        (true, "a\t\\u{1b}]52;c;x\\u{7}\n"),
    ] {
        let data = Captured::default();
        let mut output = Output::captured(Format::Table, data.clone(), io::sink());
        output.terminal = terminal;
        Viewer::new(&output, Show::Log).show(&event).unwrap();
        assert_eq!(data.text(), expected);
    }
}

#[tokio::test]
async fn generated_pages_name_every_command() {
    for line in ["completions bash", "man"] {
        let (code, data, _) = command("http://127.0.0.1:1", line).await;
        assert_eq!(code, 0);
        for name in ["serve", "run", "logs", "init-shared-fs"] {
            assert!(data.to_lowercase().contains(name), "{line} lacks {name}");
        }
    }
}

#[tokio::test]
async fn init_shared_fs_reports_and_refuses_relative_roots() {
    let root = tempfile::tempdir().unwrap();
    let line = format!(
        "init-shared-fs --shared-root {} --json",
        root.path().display()
    );
    let (code, data, _) = command("http://127.0.0.1:1", &line).await;
    let report: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (code, report["profiles"][0]["action"].as_str()),
        (0, Some("copied"))
    );
    assert_eq!(
        command("http://127.0.0.1:1", "init-shared-fs --shared-root x")
            .await
            .0,
        2
    );
}

#[tokio::test]
async fn plugin_check_tells_the_file_from_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let check = async |name: &str| {
        let line = format!("plugin check {} --json", dir.path().join(name).display());
        let (code, data, notes) = command("http://127.0.0.1:1", &line).await;
        let report: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(report["ok"], false);
        (
            code,
            report["error"]["code"].as_str().unwrap().to_owned(),
            notes,
        )
    };
    let (code, error, notes) = check("missing.wasm").await;
    assert_eq!((code, error.as_str()), (2, "plugin.file"));
    assert!(notes.contains("missing.wasm"), "{notes}");
    std::fs::write(dir.path().join("text.wasm"), "not a component").unwrap();
    let (code, error, _) = check("text.wasm").await;
    assert_eq!((code, error.as_str()), (1, "plugin.format"));
}
