//! `agenticore plugin push` and `plugin pull`: plugins in an OCI registry.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::context::Context;
use super::super::exit::ExitCode;
use super::super::output::Format;
use super::page::Page;
use super::{pack, refused, unusable};
use crate::config::{Config, Flags};
use crate::plugin::PluginError;
use crate::workbench::Workbench;
use crate::workbench::bundle::Bundle;
use crate::workbench::registry::{Artifact, Pulled, Reference, Registry, adopt};

/// Push a bundle to an OCI registry
///
/// Prints the reference by digest, which always names these bytes: put that one into scripts. The artifact has the layout for
/// WebAssembly components, so other tools can pull the component too. A registry on this machine is spoken to without TLS.
#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    /// The bundle, as `plugin pack` writes it; a component is packed as it is
    file: PathBuf,
    /// Where to, such as `registry.example.com/team/policy:1.2.0`
    reference: String,
}

/// Pull a bundle from an OCI registry to a file
///
/// Everything is checked against its digest, and, where AGENTICORE_PLUGIN_KEYS names keys, against its signatures. The file can be
/// carried to a machine without a network and installed there.
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// What to pull, such as `registry.example.com/team/policy@sha256:DIGEST`
    reference: String,
    /// The file to write; default: NAME-VERSION.tar
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

pub(super) async fn push(args: PushArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let to = args
        .reference
        .parse::<Reference>()
        .map_err(|e| unusable(&e))?;
    let config = Config::load(&Flags::default())?;
    let bench = Workbench::new(config.clone())?;
    let bundle = match pack::read(&bench, &args.file).await? {
        Ok(bundle) => bundle,
        Err(error) => return refused(context, &error),
    };
    let artifact = match registry(&config).push(&bundle, &to).await {
        Ok(artifact) => artifact,
        Err(error) => return refused(context, &error),
    };
    tell(context, &bundle, &artifact, None)
}

pub(super) async fn pull(args: PullArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let from = args
        .reference
        .parse::<Reference>()
        .map_err(|e| unusable(&e))?;
    let config = Config::load(&Flags::default())?;
    let bench = Workbench::new(config.clone())?;
    let limits = bench.plugins().host().limits();
    let pulled = async {
        let (pulled, artifact) = registry(&config).pull(&from, limits).await?;
        let bundle = match pulled {
            Pulled::Bundle(bundle) => *bundle,
            Pulled::Component(bytes) => foreign(&bench, bytes, from.short_name()).await?,
        };
        config.plugin_keys.check(&bundle.text, &bundle.signatures)?;
        Ok::<_, anyhow::Error>((bundle, artifact))
    };
    let (bundle, artifact) = match pulled.await {
        Ok(pulled) => pulled,
        Err(error) => match error.downcast::<PluginError>() {
            Ok(error) => return refused(context, &error),
            Err(error) => return Err(error),
        },
    };
    let file = args.to.unwrap_or_else(|| pack::default_file(&bundle));
    pack::write(&bundle, &file)?;
    tell(context, &bundle, &artifact, Some(&file))
}

fn registry(config: &Config) -> Registry {
    Registry::new(
        config.registry_user.as_deref(),
        config.registry_password.as_ref(),
    )
}

/// A component that somebody pushed with another tool.
async fn foreign(
    bench: &Workbench,
    bytes: std::sync::Arc<[u8]>,
    name: &str,
) -> anyhow::Result<Bundle> {
    let report = bench.plugins().host().check(bytes.clone()).await;
    if let Some(error) = report.error {
        return Err(error.into());
    }
    adopt(&report, bytes, name).map_err(|e| unusable(&e))
}

fn tell(
    context: &Context,
    bundle: &Bundle,
    artifact: &Artifact,
    file: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&json!({
            "reference": artifact.reference, "digest": artifact.digest, "manifest": bundle.manifest, "file": file,
        }))?,
        Format::Id => output.data(&format!("{}\n", artifact.reference))?,
        Format::Table => {
            let mut page = Page::default();
            page.fact("reference", &artifact.reference);
            if let Some(file) = file {
                page.fact("bundle", &file.display().to_string());
            }
            pack::facts(&mut page, bundle);
            output.data(&page.text())?;
        }
    }
    Ok(ExitCode::Success)
}
