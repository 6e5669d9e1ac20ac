//! `agenticore plugin pack` and `plugin keygen`: a plugin made ready to travel.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::context::Context;
use super::super::exit::ExitCode;
use super::super::output::{Format, Output};
use super::super::text;
use super::page::Page;
use super::{refused, unusable, workbench};
use crate::plugin::{Digest, PluginError};
use crate::workbench::bundle::{Bundle, Packing};
use crate::workbench::signature::SigningKey;
use crate::workbench::{Workbench, component};

/// Pack a plugin, and maybe a profile for it, into one file
///
/// The component is checked first. The same input gives the same bytes, whenever and wherever it is packed. With --sign the bundle
/// carries a signature over its manifest, which holds the digests of everything in it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The component
    file: PathBuf,
    /// The folder of a profile to take along; its `component:` must be NAME.wasm
    #[arg(long, value_name = "FOLDER")]
    profile: Option<PathBuf>,
    /// The name, for a component that exports no `profile` and cannot say it; default: the file's
    #[arg(long)]
    name: Option<String>,
    /// The version, for a component that cannot say it, such as 1.2.0; default: 0.0.0
    #[arg(long, value_name = "VERSION")]
    plugin_version: Option<String>,
    /// Sign with this private key; may be given many times
    #[arg(long, value_name = "KEY")]
    sign: Vec<PathBuf>,
    /// The file to write; default: NAME-VERSION.tar
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Make a key to sign plugins with
///
/// The private key goes to FILE, which only you can read, the public one to FILE.pub. Operators put the public key into
/// AGENTICORE_PLUGIN_KEYS. Keys of `openssl genpkey -algorithm ed25519` can be used as well.
#[derive(Debug, clap::Args)]
pub(super) struct KeygenArgs {
    /// The file of the private key, which must not exist
    file: PathBuf,
}

pub(super) fn keygen(args: &KeygenArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let key = SigningKey::generate(&args.file).map_err(|e| unusable(&e))?;
    let output = &context.output;
    match output.format {
        Format::Json | Format::Jsonl => output.json(&json!({"public": key.public()}))?,
        Format::Id | Format::Table => output.data(&format!("{}\n", key.public()))?,
    }
    Ok(ExitCode::Success)
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let named = component(&args.file).map_err(|e| unusable(&e))?;
    let bench = workbench()?;
    let bytes = match bench.bytes(&named).await {
        Ok(bytes) => bytes,
        Err(error) => return refused(context, &error),
    };
    let report = bench.plugins().host().check(bytes.clone()).await;
    if let Some(error) = &report.error {
        return refused(context, error);
    }
    let stem = args.file.file_stem().and_then(|stem| stem.to_str());
    let packing = Packing {
        name: args.name.as_deref(),
        stem,
        version: args.plugin_version.as_deref(),
        profile: args.profile.as_deref(),
    };
    let mut bundle = Bundle::pack(&report, bytes, &packing).map_err(|e| unusable(&e))?;
    for path in &args.sign {
        bundle.sign(&SigningKey::read(path).map_err(|e| unusable(&e))?);
    }
    let to = args.to.unwrap_or_else(|| default_file(&bundle));
    let packed = write(&bundle, &to)?;
    tell(&context.output, &bundle, &to, packed)?;
    Ok(ExitCode::Success)
}

/// Where a bundle is written when nobody says.
pub(super) fn default_file(bundle: &Bundle) -> PathBuf {
    let manifest = &bundle.manifest;
    // The version is somebody else's text.
    let version: String = manifest
        .version
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".-+".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    PathBuf::from(format!("{}-{version}.tar", manifest.name))
}

/// Writes a bundle in one step, and returns the digest of the file.
pub(super) fn write(bundle: &Bundle, to: &Path) -> anyhow::Result<Digest> {
    let bytes = bundle.to_tar().map_err(|e| unusable(&e))?;
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        std::io::Write::write_all(&mut file, &bytes)?;
        file.persist(to)?;
        Ok(())
    };
    written().map_err(|e| anyhow::anyhow!("cannot write {}: {e}", to.display()))?;
    Ok(Digest::of(&bytes))
}

pub(super) fn tell(
    output: &Output,
    bundle: &Bundle,
    file: &Path,
    digest: Digest,
) -> anyhow::Result<()> {
    let keys: Vec<&str> = bundle.signatures.iter().map(|s| s.key.as_str()).collect();
    match output.format {
        Format::Json | Format::Jsonl => output.json(&json!({
            "file": file, "sha256": digest, "manifest": bundle.manifest, "signed_by": keys,
        })),
        Format::Id => output.data(&format!("{digest}\n")),
        Format::Table => {
            let mut page = Page::default();
            page.fact("bundle", &file.display().to_string());
            page.fact("sha256", &digest.to_string());
            facts(&mut page, bundle);
            output.data(&page.text())
        }
    }
}

/// What is in a bundle.
pub(super) fn facts(page: &mut Page, bundle: &Bundle) {
    let manifest = &bundle.manifest;
    page.fact("plugin", &format!("{} {}", manifest.name, manifest.version));
    page.fact("component", &manifest.component.sha256.to_string());
    if let Some(profile) = &manifest.profile {
        let count = profile.files.len();
        page.fact("profile", &format!("{}, {count} files", profile.name));
    }
    page.facts(
        "signed by",
        bundle.signatures.iter().map(|s| text::line(&s.key, 100)),
    );
}

/// Reads a bundle from a file, or packs a bare component as it is.
pub(super) async fn read(
    bench: &Workbench,
    file: &Path,
) -> anyhow::Result<Result<Bundle, PluginError>> {
    let limits = bench.plugins().host().limits();
    let most = limits.component_bytes.0 + 2 * limits.output_bytes.0 + (4 << 20);
    let metadata = std::fs::metadata(file).map_err(|e| {
        unusable(&crate::workbench::Unusable(format!(
            "{}: {e}",
            file.display()
        )))
    })?;
    if metadata.len() > most {
        let shown = file.display();
        return Err(unusable(&crate::workbench::Unusable(format!(
            "{shown}: it has more than {most} bytes, and no bundle has"
        ))));
    }
    let bytes = std::fs::read(file)?;
    if !bytes.starts_with(b"\0asm") {
        return Ok(Bundle::from_tar(&bytes, limits));
    }
    let bytes: std::sync::Arc<[u8]> = bytes.into();
    let report = bench.plugins().host().check(bytes.clone()).await;
    if let Some(error) = report.error {
        return Ok(Err(error));
    }
    let packing = Packing {
        stem: file.file_stem().and_then(|stem| stem.to_str()),
        ..Packing::default()
    };
    Bundle::pack(&report, bytes, &packing)
        .map(Ok)
        .map_err(|e| unusable(&e))
}
