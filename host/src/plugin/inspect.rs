//! A look at the bytes before they are compiled: whether they are a component at all, and how much there is to compile.

use wasmparser::{Encoding, Parser, Payload};

use super::error::{Code, PluginError};
use super::limits::Limits;

/// How many components a component may contain, itself included. Toolchains wrap each exported interface in one.
const MAX_COMPONENTS: usize = 100;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Shape {
    functions: u64,
    sections: u64,
    components: usize,
}

/// Checks the form and the limits on size, functions and sections.
pub(super) fn inspect(bytes: &[u8], limits: &Limits) -> Result<(), PluginError> {
    check_size(bytes.len() as u64, limits)?;
    check_header(bytes)?;
    let mut shape = Shape::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| malformed(&error, bytes.len()))?;
        shape.count(&payload, limits)?;
    }
    Ok(())
}

pub(super) fn check_size(bytes: u64, limits: &Limits) -> Result<(), PluginError> {
    let allowed = limits.component_bytes.0;
    if bytes > allowed {
        let message = "the component is too large";
        return Err(PluginError::limit(
            Code::Size,
            "component_bytes",
            bytes,
            allowed,
            message,
        ));
    }
    Ok(())
}

fn check_header(bytes: &[u8]) -> Result<(), PluginError> {
    let refuse = |message: &str| Err(PluginError::new(Code::Format, message));
    match bytes {
        [] => refuse("the file is empty"),
        [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            refuse("the file is a core WebAssembly module, not a component")
        }
        [b'\0', b'a', b's', b'm', _, _, _, _, ..] => {
            refuse("the file is WebAssembly of a version that is not known")
        }
        [b'\0', b'a', ..] if bytes.len() < 8 => {
            refuse("the file is cut off within its first 8 bytes")
        }
        _ if is_text(bytes) => refuse("the file is WebAssembly text; compile it to binary first"),
        _ => refuse("the file is not WebAssembly"),
    }
}

fn is_text(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    start.starts_with(b"(component") || start.starts_with(b"(module") || start.starts_with(b";;")
}

fn malformed(error: &wasmparser::BinaryReaderError, len: usize) -> PluginError {
    let at = error.offset();
    if error.message().contains("unexpected end") || error.message().contains("end-of-file") {
        let message = format!("the component is cut off: more was expected at byte {at} of {len}");
        return PluginError::new(Code::Format, message);
    }
    PluginError::new(
        Code::Format,
        format!("the component is damaged at byte {at}: {}", error.message()),
    )
}

impl Shape {
    fn count(&mut self, payload: &Payload<'_>, limits: &Limits) -> Result<(), PluginError> {
        match payload {
            Payload::Version { encoding, .. } => {
                self.components += usize::from(*encoding == Encoding::Component);
                if self.components > MAX_COMPONENTS {
                    let message =
                        format!("the component consists of more than {MAX_COMPONENTS} components");
                    return Err(PluginError::new(Code::Complexity, message));
                }
            }
            Payload::CodeSectionStart { count, .. } => self.functions += u64::from(*count),
            Payload::CodeSectionEntry(body) => check_function(body.range().len() as u64, limits)?,
            _ => self.sections += 1,
        }
        at_most(
            "component_functions",
            self.functions,
            limits.component_functions,
            "functions",
        )?;
        at_most(
            "component_sections",
            self.sections,
            limits.component_sections,
            "sections",
        )
    }
}

fn check_function(bytes: u64, limits: &Limits) -> Result<(), PluginError> {
    let allowed = limits.function_bytes.0;
    if bytes > allowed {
        let message = "a function of the component is too large to compile in reasonable time";
        return Err(PluginError::limit(
            Code::Complexity,
            "function_bytes",
            bytes,
            allowed,
            message,
        ));
    }
    Ok(())
}

fn at_most(name: &str, used: u64, allowed: u32, what: &str) -> Result<(), PluginError> {
    let allowed = u64::from(allowed);
    if used > allowed {
        let message = format!("the component has too many {what}");
        return Err(PluginError::limit(
            Code::Complexity,
            name,
            used,
            allowed,
            message,
        ));
    }
    Ok(())
}
