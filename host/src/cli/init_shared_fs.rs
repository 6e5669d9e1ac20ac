//! `agenticore init-shared-fs`.

use std::path::PathBuf;

use anyhow::Context as _;

use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::output::Format;
use super::text;
use crate::shared_fs::{self, Action, Report};

/// Lay out the shared file system and copy the bundled profiles to it
///
/// It may run again at any time and on several machines at once. Profiles that were edited there are left alone.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The root of the shared file system
    #[arg(
        long,
        value_name = "PATH",
        env = "AGENTICORE_SHARED_FS_ROOT",
        hide_env_values = true
    )]
    shared_root: Option<PathBuf>,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let root = args.shared_root.filter(|r| !r.as_os_str().is_empty());
    let root = root.ok_or_else(|| {
        UsageError(
            "there is no shared root: give --shared-root PATH or set AGENTICORE_SHARED_FS_ROOT"
                .into(),
        )
    })?;
    if !root.is_absolute() {
        return Err(UsageError(format!(
            "the shared root {} is not an absolute path",
            root.display()
        ))
        .into());
    }
    let report = tokio::task::spawn_blocking(move || shared_fs::init(&root))
        .await
        .context("the initialisation ended early")??;
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&report)?,
        Format::Id => report
            .profiles
            .iter()
            .try_for_each(|p| output.data(&format!("{}\n", p.name)))?,
        Format::Table => output.data(&page(&report))?,
    }
    for profile in report
        .profiles
        .iter()
        .filter(|p| p.action == Action::KeptEdited)
    {
        let place = report.root.join("profiles").join(&profile.name);
        output.note(&format!(
            "{} was edited and is left alone; to get the bundled one, move it away and run this again",
            text::lines(&place.display().to_string())
        ));
    }
    Ok(ExitCode::Success)
}

fn page(report: &Report) -> String {
    let mut page = format!(
        "root  {}  (layout {})\n",
        report.root.display(),
        report.layout
    );
    for folder in &report.created {
        page.push_str(&format!("created  {}\n", folder.display()));
    }
    for profile in &report.profiles {
        page.push_str(&format!(
            "profile  {}  {}\n",
            profile.name,
            profile.action.as_str()
        ));
    }
    if report.temporaries_removed > 0 {
        page.push_str(&format!(
            "removed  {} temporaries of runs that died\n",
            report.temporaries_removed
        ));
    }
    text::lines(&page).into_owned()
}
