//! A program in the agent's place: it speaks the agent's output format and does what a test says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A scripted agent.
#[derive(Debug)]
pub struct ScriptedAgent {
    program: PathBuf,
    calls: PathBuf,
}

impl ScriptedAgent {
    /// Writes the program into `folder`. It runs `body` in the job's working directory, with the task on standard input, and
    /// ends well when `body` does.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(folder: &Path, body: &str) -> Self {
        let program = folder.join("scripted-agent");
        let calls = folder.join("scripted-agent.calls");
        let text = TEMPLATE
            .replace("@CALLS@", &calls.display().to_string())
            .replace("@BODY@", body);
        fs::write(&program, text).expect("the agent is written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .expect("the agent is executable");
        Self { program, calls }
    }

    /// Its path.
    #[must_use]
    pub fn program(&self) -> String {
        self.program.display().to_string()
    }

    /// The arguments of each call, one line a call.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.calls).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

const TEMPLATE: &str = r#"#!/bin/sh
echo "$*" >> '@CALLS@'
session=none
previous=
for word in "$@"; do
  case "$previous" in --session-id|--resume) session=$word ;; esac
  case "$word" in --session-id=*|--resume=*) session=${word#*=} ;; esac
  previous=$word
done
echo '{"type":"system","subtype":"init","session_id":"'"$session"'","model":"scripted-1","tools":[],"mcp_servers":[]}'
(
@BODY@
) >&2
code=$?
error=false
reason=completed
if [ "$code" -ne 0 ]; then error=true; reason=error; fi
echo '{"type":"result","subtype":"success","is_error":'"$error"',"duration_ms":1,"num_turns":1,"result":"scripted result",' \
  '"session_id":"'"$session"'","total_cost_usd":0.25,"usage":{"input_tokens":10,"output_tokens":5},' \
  '"terminal_reason":"'"$reason"'"}' | tr -d '\n'
echo
exit "$code"
"#;
