//! The developer's commands, called as `cargo xtask COMMAND`.
//!
//! This crate is the first thing that is compiled in a fresh clone, so it stands on the standard library and `anyhow` alone. It
//! starts cargo, the product's binary and the tests crate; what they do is theirs.

mod bench;
mod demo;
mod foreign;
mod gates;
mod plugins;
mod reference;
mod sh;
mod test;
mod totals;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
The developer's commands.

usage: cargo xtask COMMAND

  plugins             build the WebAssembly plugins into plugins/dist
  reference           write docs/plugins/reference.md from wit/
  build [--release]   build the plugins, then the agenticore binary
  demo                start a server, run a job on it, show what it did
  test [--only NAME]  everything that must be green; NAME is a section (see its headings) or part of a test's name
  bench [ARG..]       build a release and measure it; --json prints one object, --only ROW measures one row
  image               build a release and the container image of it, without the agent CLI
  chaos [ARG..]       build a release, trouble a fleet of it, and prove that nothing was lost or ran twice at once;
                      --seed S --minutes M --pods N --jobs J
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match command(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[&str]) -> Result<ExitCode> {
    match words {
        ["plugins"] => drop(plugins::build()?),
        ["reference"] => reference::write()?,
        ["build"] => sh::build_binary(false)?,
        ["build", "--release"] => sh::build_binary(true)?,
        ["demo"] => demo::run()?,
        ["test"] => return test::run(None),
        ["test", "--only", name] => return test::run(Some(name)),
        ["bench", rest @ ..] => bench::run("bench", rest)?,
        ["image"] => bench::run("image", &[])?,
        ["chaos", rest @ ..] => bench::run("chaos", rest)?,
        ["help" | "--help" | "-h"] => print!("{USAGE}"),
        [] => bail!("no command given\n\n{USAGE}"),
        other => bail!("`{}` is no command\n\n{USAGE}", other.join(" ")),
    }
    Ok(ExitCode::SUCCESS)
}
