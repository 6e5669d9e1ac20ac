//! `agenticore plugin check`: what a plugin author asks of a component before anybody runs it.

use std::path::PathBuf;

use serde_json::json;

use super::super::context::Context;
use super::super::exit::ExitCode;
use super::super::output::{Format, Output};
use super::super::text;
use super::page::Page;
use super::{unusable, workbench};
use crate::plugin::{CheckReport, Code, PluginError};
use crate::workbench;

/// Say what a component is, and whether this version can use it
///
/// It is loaded under the limits of a server, and nothing but its description is asked for. Exit codes: 0 it can be used; 1 it
/// cannot, or --strict found something; 2 the file cannot be read. With --json the report is one stable document.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The component, such as `plugin.wasm`, or the name of a bundled plugin
    file: PathBuf,
    /// Fail also for imports that are refused when the plugin uses them, such as the network, and for capabilities that this
    /// machine's settings let no profile grant
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let component = match workbench::component(&args.file) {
        Ok(component) => component,
        Err(problem) if context.output.format == Format::Table => return Err(unusable(&problem)),
        Err(problem) => {
            return unread(
                &context.output,
                &PluginError::new(Code::File, problem.to_string()),
            );
        }
    };
    let bench = workbench()?;
    let bytes = match bench.bytes(&component).await {
        Ok(bytes) => bytes,
        Err(error) => return unread(&context.output, &error),
    };
    let report = bench.plugins().host().check(bytes).await;
    tell(&context.output, &report, args.strict)
}

/// There are no bytes to report on: the file is missing, or larger than any component may be.
pub(super) fn unread(output: &Output, error: &PluginError) -> anyhow::Result<ExitCode> {
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
    if strict {
        for finding in &report.findings {
            output.note(&format!(
                "--strict: {}",
                text::line(&finding.to_string(), 1000)
            ));
        }
    }
    let passes = report.ok && (!strict || report.findings.is_empty());
    Ok(if passes {
        ExitCode::Success
    } else {
        ExitCode::Failed
    })
}

fn page(report: &CheckReport) -> String {
    let mut page = Page::default();
    page.fact("usable", if report.ok { "yes" } else { "no" });
    if let Some(about) = &report.description {
        page.fact("plugin", &format!("{} {}", about.name, about.version));
        page.fact("summary", &about.summary);
    }
    page.fact("sha256", &report.sha256.to_string());
    page.fact("size", &format!("{} bytes", report.size));
    let api = report.api.as_deref().unwrap_or("unknown");
    page.fact(
        "contract",
        &format!("{api} (this host speaks {})", report.host_api),
    );
    if let Some(exports) = report.exports {
        page.fact("exports", &exports.names().join(" "));
    }
    for import in &report.imports {
        let mark = if import.refused {
            "  (refused when used)"
        } else {
            ""
        };
        page.fact("import", &format!("{}{mark}", import.name));
    }
    if let Some(requests) = &report.requests {
        let names: Vec<_> = requests.iter().map(|g| g.to_string()).collect();
        page.fact("asks for", &names.join(" "));
    }
    for finding in &report.findings {
        page.fact("note", &finding.to_string());
    }
    if let Some(error) = &report.error {
        page.fact("error", &error.to_string());
        page.fact("fixed by", error.fixed_by.as_str());
        if !error.detail.is_empty() {
            page.block(&error.detail);
        }
    }
    page.text()
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
            "findings": if refused { json!([network()]) } else { json!([]) },
        }))
        .unwrap()
    }

    fn network() -> PluginError {
        PluginError::new(Code::Network, "it imports `wasi:sockets/tcp@0.2.6`")
    }

    #[test]
    fn strict_fails_for_findings_alone() {
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
        note        plugin.network: it imports `wasi:sockets/tcp@0.2.6`; remove the call; a plugin has no network
        ");
    }
}
