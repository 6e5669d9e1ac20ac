//! `agenticore pods`.

use super::context::Context;
use super::exit::ExitCode;
use super::output::Rows;
use super::text;
use crate::queue::redis::PodInfo;

/// List the pods of the fleet, as the pod that answers knows them
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let pods = context.client()?.pods().await?;
    context
        .output
        .list(&pods, |pod| pod.facts.pod.clone(), || rows(&pods))?;
    if pods.is_empty() {
        context.output.note(
            "no pod is known here: the server is alone, or Redis has not answered since it started, which `agenticore status` tells",
        );
    }
    Ok(ExitCode::Success)
}

fn rows(pods: &[PodInfo]) -> Rows {
    let row = |pod: &PodInfo| {
        let state = match (pod.expired, pod.facts.draining) {
            (true, _) => "lost",
            (false, true) => "draining",
            (false, false) => "serving",
        };
        vec![
            text::line(&pod.facts.pod, 64),
            state.to_owned(),
            format!("{}/{}", pod.facts.running, pod.facts.slots),
            text::line(&pod.facts.version, 32),
            pod.facts.started_at.to_string(),
        ]
    };
    Rows {
        heading: &["POD", "STATE", "JOBS", "VERSION", "STARTED"],
        rows: pods.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_shows_whether_it_takes_jobs() {
        let pod = |draining, expired| {
            serde_json::from_value::<PodInfo>(serde_json::json!({
                "life": "agenticore-1.0a", "pod": "agenticore-1", "ordinal": 1, "version": "0.1.0", "slots": 3, "running": 2,
                "draining": draining, "expired": expired,
                "started_at": "2026-01-01T00:00:00Z", "seen_at": "2026-01-01T00:00:00Z",
            }))
        };
        let pods: Vec<PodInfo> = [(false, false), (true, false), (true, true)]
            .into_iter()
            .filter_map(|(draining, expired)| pod(draining, expired).ok())
            .collect();
        let states: Vec<String> = rows(&pods)
            .rows
            .into_iter()
            .map(|row| row.join(" "))
            .collect();
        let line = |state: &str| format!("agenticore-1 {state} 2/3 0.1.0 2026-01-01T00:00:00Z");
        assert_eq!(states, ["serving", "draining", "lost"].map(line));
    }
}
