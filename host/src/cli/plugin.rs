//! `agenticore plugin`: what a plugin author asks of a component before anybody runs it.

mod new;

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::ExitCode;
use super::output::{Format, Output};
use super::text;
use crate::plugin::{CheckReport, Code, HostOptions, PluginError, PluginHost, read_component};

/// Work with plugins
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    New(new::Args),
    Check(Check),
}

/// Say what a component is, and whether this version can use it
///
/// It is loaded under the limits of a server, and nothing but its description is asked for. Exit codes: 0 it can be used; 1 it
/// cannot, or --strict found something; 2 the file cannot be read. With --json the report is one stable document.
#[derive(Debug, clap::Args)]
struct Check {
    /// The component, such as `plugin.wasm`
    file: PathBuf,
    /// Fail also for imports that are refused when the plugin uses them, such as the network
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    match args.what {
        What::New(args) => new::run(args, context).await,
        What::Check(args) => check(args, context).await,
    }
}

async fn check(args: Check, context: &Context) -> anyhow::Result<ExitCode> {
    let host = PluginHost::new(HostOptions::default())?;
    let bytes = match read_component(&args.file, host.limits()).await {
        Ok(bytes) => bytes,
        Err(error) => return unread(&context.output, &error),
    };
    let report = host.check(bytes).await;
    tell(&context.output, &report, args.strict)
}

/// There are no bytes to report on: the file is missing, or larger than any component may be.
fn unread(output: &Output, error: &PluginError) -> anyhow::Result<ExitCode> {
    if output.format != Format::Table {
        output.json(&json!({"ok": false, "error": error}))?;
    }
    output.note(&format!("agenticore: {}", text::lines(&error.to_string())));
    Ok(match error.code {
        Code::File => ExitCode::Usage,
        _ => ExitCode::Failed,
    })
}

fn tell(output: &Output, report: &CheckReport, strict: bool) -> anyhow::Result<ExitCode> {
    match output.format {
        Format::Json | Format::Jsonl => output.json(report)?,
        Format::Id => output.data(&format!("{}\n", report.sha256))?,
        Format::Table => output.data(&page(report))?,
    }
    let refused = refused(report);
    if strict && !refused.is_empty() {
        let names = text::line(&refused.join(", "), 1000);
        output.note(&format!("--strict: it imports what is refused: {names}"));
    }
    let passes = report.ok && (!strict || refused.is_empty());
    Ok(if passes {
        ExitCode::Success
    } else {
        ExitCode::Failed
    })
}

fn refused(report: &CheckReport) -> Vec<&str> {
    let refused = report.imports.iter().filter(|i| i.refused);
    refused.map(|i| i.name.as_str()).collect()
}

fn page(report: &CheckReport) -> String {
    let mut page = String::new();
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(page, "{name:<10}  {}", text::line(value, 1000));
    };
    fact("usable", if report.ok { "yes" } else { "no" });
    if let Some(about) = &report.description {
        fact("plugin", &format!("{} {}", about.name, about.version));
        fact("summary", &about.summary);
    }
    fact("sha256", &report.sha256.to_string());
    fact("size", &format!("{} bytes", report.size));
    let api = report.api.as_deref().unwrap_or("unknown");
    fact(
        "contract",
        &format!("{api} (this host speaks {})", report.host_api),
    );
    if let Some(exports) = report.exports {
        let all = [
            (exports.profile, "profile"),
            (exports.agent, "agent"),
            (exports.hooks, "hooks"),
        ];
        let names: Vec<_> = all
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| *name)
            .collect();
        fact("exports", &names.join(" "));
    }
    for import in &report.imports {
        let mark = if import.refused {
            "  (refused when used)"
        } else {
            ""
        };
        fact("import", &format!("{}{mark}", import.name));
    }
    if let Some(requests) = &report.requests {
        let names: Vec<_> = requests.iter().map(|g| g.to_string()).collect();
        fact("asks for", &names.join(" "));
    }
    if let Some(error) = &report.error {
        fact("error", &error.to_string());
        if !error.detail.is_empty() {
            let _ = writeln!(page, "{}", text::lines(&error.detail));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io;

    use super::*;

    fn report(ok: bool, refused: bool) -> CheckReport {
        serde_json::from_value(json!({
            "ok": ok,
            "sha256": "0".repeat(64),
            "size": 7,
            "host_api": "1.0.0",
            "api": "1.0.0",
            "exports": {"profile": true, "agent": false, "hooks": true},
            "imports": [
                {"name": "agenticore:plugin/host@1.0.0", "refused": false},
                {"name": "wasi:sockets/tcp@0.2.6", "refused": refused},
            ],
            "requests": {"program": ["sh"]},
        }))
        .unwrap()
    }

    #[test]
    fn strict_fails_for_refused_imports_alone() {
        let code = |ok, refused, strict| {
            let output = Output::captured(Format::Table, io::sink(), io::sink());
            tell(&output, &report(ok, refused), strict).unwrap()
        };
        assert_eq!(code(true, true, false), ExitCode::Success);
        assert_eq!(code(true, true, true), ExitCode::Failed);
        assert_eq!(code(true, false, true), ExitCode::Success);
        assert_eq!(code(false, false, false), ExitCode::Failed);
    }

    #[test]
    fn the_page_names_what_an_operator_wants_to_know() {
        insta::assert_snapshot!(page(&report(true, true)), @r"
        usable      yes
        sha256      0000000000000000000000000000000000000000000000000000000000000000
        size        7 bytes
        contract    1.0.0 (this host speaks 1.0.0)
        exports     profile hooks
        import      agenticore:plugin/host@1.0.0
        import      wasi:sockets/tcp@0.2.6 (refused when used)
        asks for    program:sh
        ");
    }
}
