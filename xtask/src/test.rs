//! `cargo xtask test`: everything that must be green, in one command and with one total at its end.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::gates::{self, Checked};
use crate::totals::Totals;
use crate::{plugins, reference, sh};

/// One part of the run.
struct Section {
    /// What `--only` calls it.
    name: &'static str,
    /// Its heading.
    heading: &'static str,
    run: fn(&mut Run) -> Result<Checked>,
}

const SECTIONS: [Section; 10] = [
    Section {
        name: "fmt",
        heading: "formatting",
        run: |_| passed(sh::cargo(["fmt", "--all", "--check"])),
    },
    Section {
        name: "words",
        heading: "the host knows no agent",
        run: |_| gates::words(),
    },
    Section {
        name: "reference",
        heading: "the reference of the contract is current",
        run: |_| reference::check(),
    },
    Section {
        name: "deny",
        heading: "licences and advisories",
        run: |_| gates::deny(),
    },
    Section {
        name: "plugins",
        heading: "plugins for WebAssembly",
        run: |_| plugins::build(),
    },
    Section {
        name: "clippy",
        heading: "lints of the host and its tests",
        run: |_| passed(clippy_host()),
    },
    Section {
        name: "clippy-guests",
        heading: "lints of the plugins",
        run: |_| passed(clippy_guests()),
    },
    Section {
        name: "doc",
        heading: "documentation",
        run: |_| passed(rustdoc()),
    },
    Section {
        name: "tests",
        heading: "unit and end-to-end tests",
        run: |run| run.tests(None),
    },
    Section {
        name: "doctests",
        heading: "examples in the documentation",
        run: |run| run.doctests(),
    },
];

/// Runs every section, or the one of this name, or the tests whose name contains it.
///
/// # Errors
/// When the run itself cannot be set up. A failed section is an exit code, after the others had their turn.
pub(crate) fn run(only: Option<&str>) -> Result<ExitCode> {
    let mut run = Run::new()?;
    match only {
        None => {
            for section in &SECTIONS {
                run.section(section.heading, section.run);
            }
        }
        Some(name) => match SECTIONS.iter().find(|section| section.name == name) {
            Some(section) => run.section(section.heading, section.run),
            None => {
                let heading = format!("tests with `{name}` in their name");
                run.section("plugins for WebAssembly", |_| plugins::build());
                run.section(&heading, |run| run.tests(Some(name)));
            }
        },
    }
    Ok(run.finish())
}

fn passed(mut command: Command) -> Result<Checked> {
    sh::run(&mut command).map(|()| Checked::Passed)
}

fn clippy_host() -> Command {
    let mut command = sh::cargo(["clippy"]);
    command
        .args(sh::NATIVE)
        .args(["--all-targets", "--", "-D", "warnings"]);
    command
}

fn clippy_guests() -> Command {
    let mut command = sh::cargo(["clippy", "--target", plugins::TARGET, "--profile", "guest"]);
    for package in plugins::packages() {
        command.args(["--package", package]);
    }
    command.args(["--", "-D", "warnings"]);
    command
}

/// `RUSTDOCFLAGS` reaches rustdoc alone, so nothing is compiled again for it.
fn rustdoc() -> Command {
    let mut command = sh::cargo(["doc", "--no-deps"]);
    command.args(sh::NATIVE).env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// The state of a run.
struct Run {
    totals: Totals,
    failures: Vec<String>,
    skips: Vec<String>,
    /// Tests write a line here when they cannot run on this machine.
    skip_file: PathBuf,
    started: Instant,
}

impl Run {
    fn new() -> Result<Self> {
        let skip_file = sh::target_dir().join("xtask-skips.txt");
        fs::create_dir_all(sh::target_dir()).context("cannot create the target folder")?;
        Ok(Self {
            totals: Totals::default(),
            failures: Vec::new(),
            skips: Vec::new(),
            skip_file,
            started: Instant::now(),
        })
    }

    fn section(&mut self, heading: &str, body: impl FnOnce(&mut Self) -> Result<Checked>) {
        println!("\n=== {heading}");
        let started = Instant::now();
        let failed_before = self.totals.failed;
        match body(self) {
            Ok(Checked::Passed) => {
                println!(
                    "--- {heading}: ok, {:.0} s",
                    started.elapsed().as_secs_f64()
                );
            }
            Ok(Checked::Skipped(reason)) => {
                println!("--- {heading}: skipped, {reason}");
                self.totals.skipped += 1;
                self.skips.push(format!("{heading}: {reason}"));
            }
            Err(error) => {
                println!("--- {heading}: FAILED: {error:#}");
                // A failed test is in the totals already; a failed check or build is not.
                if self.totals.failed == failed_before {
                    self.totals.failed += 1;
                }
                self.failures.push(heading.to_owned());
            }
        }
    }

    /// Builds the binary and the tests in one go, so that they share every dependency, then runs the tests.
    fn tests(&mut self, filter: Option<&str>) -> Result<Checked> {
        let mut build = sh::cargo(["build"]);
        build.args(sh::NATIVE).arg("--all-targets");
        sh::run(&mut build)?;
        let mut command = sh::cargo(["test"]);
        command
            .args(sh::NATIVE)
            .args(["--all-targets", "--no-fail-fast"]);
        if let Some(filter) = filter {
            command.args(["--", filter]);
        }
        command.env("AGENTICORE_BIN", sh::binary(false));
        command.env("AGENTICORE_TEST_SKIPS", &self.skip_file);
        if let Some(agent) = agent_cli()? {
            command.env("AGENTICORE_TEST_CLAUDE", agent);
        }
        if !self.count(&mut command)? {
            bail!("no test was run: nothing has that name");
        }
        Ok(Checked::Passed)
    }

    fn doctests(&mut self) -> Result<Checked> {
        let mut command = sh::cargo(["test", "--doc"]);
        command.args(sh::NATIVE);
        self.count(&mut command).map(|_| Checked::Passed)
    }

    /// Passes the output of a test command through and adds up what it says; returns whether any test ran.
    fn count(&mut self, command: &mut Command) -> Result<bool> {
        let line = sh::show(command);
        remove(&self.skip_file)?;
        let before = self.totals;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let output = child.stdout.take().context("the child has no output")?;
        let mut out = std::io::stdout().lock();
        for text in BufReader::new(output).split(b'\n') {
            let text = text.context("cannot read the tests' output")?;
            let text = String::from_utf8_lossy(&text);
            writeln!(out, "{text}").context("cannot write to standard output")?;
            self.totals.add_line(&text);
        }
        let status = child.wait().context("cannot wait for the tests")?;
        self.read_skips();
        if !status.success() {
            bail!("`{line}`: {status}");
        }
        Ok(self.totals != before)
    }

    fn read_skips(&mut self) {
        let Ok(text) = fs::read_to_string(&self.skip_file) else {
            return;
        };
        for line in text.lines() {
            self.totals.passed_was_skipped();
            self.skips.push(line.to_owned());
        }
    }

    fn finish(self) -> ExitCode {
        println!("\n=== total");
        for skip in &self.skips {
            println!("skipped: {skip}");
        }
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("it took {:.0} s", self.started.elapsed().as_secs_f64());
        println!("{}", self.totals);
        if self.failures.is_empty() && self.totals.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// The real agent CLI that tests run, if there is one; continuous integration must have it.
fn agent_cli() -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os("AGENTICORE_TEST_CLAUDE") {
        return Ok(Some(path.into()));
    }
    let local = sh::target_dir().join("agent-cli/node_modules/.bin/claude");
    if local.exists() {
        return Ok(Some(local));
    }
    if sh::is_ci() {
        bail!(
            "{} is missing, and CI must test against the real agent CLI: .ci/run installs it",
            local.display()
        );
    }
    Ok(None)
}
