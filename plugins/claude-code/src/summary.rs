//! One line for people about what a tool was given and what it gave back.

use serde_json::Value;

use agenticore_plugin::one_line;

/// The longest line, in characters.
const LEN: usize = 200;

/// What a tool was given: the one argument that says most, or all of them.
pub(crate) fn input(tool: &str, input: &Value) -> String {
    const TELLING: [&str; 9] = [
        "command",
        "file_path",
        "notebook_path",
        "pattern",
        "url",
        "query",
        "description",
        "skill",
        "path",
    ];
    let telling = TELLING
        .iter()
        .find_map(|key| input.get(key).and_then(Value::as_str));
    match telling {
        // The name of somebody else's tool says nothing about which argument matters.
        Some(text) if !tool.starts_with("mcp__") => one_line(text, LEN),
        _ => one_line(&input.to_string(), LEN),
    }
}

/// The beginning of what a tool gave back: a text, or a list of blocks.
pub(crate) fn content(content: &Value) -> String {
    match content {
        Value::String(text) => one_line(text, LEN),
        Value::Array(blocks) => {
            let texts =
                blocks
                    .iter()
                    .map(|block| match block.get("text").and_then(Value::as_str) {
                        Some(text) => one_line(text, LEN),
                        None => format!(
                            "[{}]",
                            block.get("type").and_then(Value::as_str).unwrap_or("block")
                        ),
                    });
            one_line(&texts.collect::<Vec<_>>().join(" "), LEN)
        }
        Value::Null => String::new(),
        other => one_line(&other.to_string(), LEN),
    }
}
