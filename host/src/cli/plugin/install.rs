//! `agenticore plugin install`: a bundle put where profiles find it.

use std::path::PathBuf;

use super::super::context::Context;
use super::super::exit::ExitCode;
use super::super::output::Format;
use super::page::Page;
use super::{pack, refused};
use crate::config::{Config, Flags};
use crate::workbench::Workbench;
use crate::workbench::install::{self, Installed};

/// Install a bundle for the profiles of this machine
///
/// The component goes to PROFILES/_plugins/NAME.wasm, where any profile names it as `component: NAME.wasm`; the bundle's profile goes
/// beside it. Nothing is asked of a network. Calls that run while a component is replaced go on with the old one. Where
/// AGENTICORE_PLUGIN_KEYS names keys, one of them must have signed the bundle.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundle, as `plugin pack` and `plugin pull` write it; a component will do
    bundle: PathBuf,
    /// The folder of profiles; default: that of your home
    #[arg(long, value_name = "FOLDER")]
    profiles: Option<PathBuf>,
    /// Take the place of another version that is there
    #[arg(long)]
    replace: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Flags::default())?;
    let keys = config.plugin_keys.clone();
    let root = args
        .profiles
        .unwrap_or_else(|| config.home.join("profiles"));
    let bench = Workbench::new(config)?;
    let bundle = match pack::read(&bench, &args.bundle).await? {
        Ok(bundle) => bundle,
        Err(error) => return refused(context, &error),
    };
    let host = bench.plugins().host();
    // Before it takes the place of one that works.
    if let Some(error) = host.check(bundle.component.clone()).await.error {
        return refused(context, &error);
    }
    let installed = match install::install(&bundle, &root, args.replace, &keys, host.limits()) {
        Ok(installed) => installed,
        Err(error) => return refused(context, &error),
    };
    tell(context, &installed)
}

fn tell(context: &Context, installed: &Installed) -> anyhow::Result<ExitCode> {
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(installed)?,
        Format::Id => output.data(&format!("{}\n", installed.sha256))?,
        Format::Table => {
            let mut page = Page::default();
            page.fact(
                "plugin",
                &format!("{} {}", installed.name, installed.version),
            );
            page.fact("sha256", &installed.sha256.to_string());
            page.fact("component", &installed.component.display().to_string());
            if let Some(before) = &installed.replaced {
                page.fact("replaced", &before.to_string());
            }
            if let Some(profile) = &installed.profile {
                page.fact("profile", &profile.display().to_string());
            }
            if let Some(key) = &installed.signed_by {
                page.fact("signed by", key);
            }
            output.data(&page.text())?;
        }
    }
    Ok(ExitCode::Success)
}
