//! `agenticore plugin new`.

use std::path::PathBuf;

use crate::cli::context::Context;
use crate::cli::exit::{ExitCode, UsageError};
use crate::cli::output::Format;
use crate::cli::text;
use crate::scaffold::{self, Kind, Language, ScaffoldError};

/// Begin a plugin of your own
///
/// Writes a project that builds and passes its test: source, a copy of the contract, cases, a profile that uses it, and a README with
/// the commands from here to a job.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The plugin's name, such as `my-policy`
    name: String,
    /// The language it is written in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// What it does
    #[arg(long, value_enum, default_value_t = Kind::Hooks)]
    kind: Kind,
    /// The folder to write; it must not exist. Default: NAME in the current directory
    #[arg(long)]
    path: Option<PathBuf>,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let path = args.path.unwrap_or_else(|| PathBuf::from(&args.name));
    let project = scaffold::create(&path, &args.name, args.lang, args.kind).map_err(wrong)?;
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&project)?,
        Format::Id => output.data(&format!("{}\n", project.name))?,
        Format::Table => {
            let mut page = String::new();
            for file in &project.files {
                page.push_str(&format!(
                    "wrote  {}\n",
                    text::line(&path.join(file).display().to_string(), 1000)
                ));
            }
            output.data(&page)?;
        }
    }
    let folder = text::line(&path.display().to_string(), 1000);
    output.note(&format!("next: {folder}/build.sh, then `agenticore plugin test {folder}/cases`; {folder}/README.md has the rest"));
    Ok(ExitCode::Success)
}

/// What the user can type otherwise is wrong usage, the rest a failure.
fn wrong(error: ScaffoldError) -> anyhow::Error {
    match error {
        ScaffoldError::Name { .. } | ScaffoldError::Exists(_) => {
            UsageError(error.to_string()).into()
        }
        other => other.into(),
    }
}
