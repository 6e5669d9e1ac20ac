//! A component taken apart without running it: its WIT, and what its bytes are made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use wasmparser::{Encoding, KnownCustom, Parser, Payload};

use crate::plugin::{Code, Digest, PluginError, PluginHost, inspect_bytes, text};

/// What a component is made of.
#[derive(Debug, Clone, Serialize)]
pub struct Anatomy {
    /// Its digest.
    pub sha256: Digest,
    /// Its bytes.
    pub size: u64,
    /// The components and modules in it, itself first.
    pub parts: Vec<Part>,
    /// What its makers wrote into it: toolchains and their versions.
    pub producers: BTreeMap<String, Vec<String>>,
    /// Its imports and exports as WIT, with every type they use.
    pub wit: String,
}

/// A component or a module.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// `component` or `module`.
    pub kind: &'static str,
    /// How deep it is nested.
    pub depth: usize,
    /// Its sections, by kind.
    pub sections: BTreeMap<String, Section>,
    /// Functions with a body.
    pub functions: u32,
}

/// All sections of one kind in a part.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Section {
    /// How many there are.
    pub count: u32,
    /// Their bytes, without their headers.
    pub bytes: u64,
}

/// Takes a component apart, under the limits on its size and form.
///
/// # Errors
/// As for loading: too large, no component, damaged, not to be compiled.
pub async fn of(bytes: Arc<[u8]>, host: &PluginHost) -> Result<Anatomy, PluginError> {
    inspect_bytes(&bytes, host.limits())?;
    let mut walk = Walk::default();
    for payload in Parser::new(0).parse_all(&bytes) {
        walk.take(&payload.map_err(|e| damaged(&e))?);
    }
    Ok(Anatomy {
        sha256: Digest::of(&bytes),
        size: bytes.len() as u64,
        parts: walk.parts,
        producers: walk.producers,
        wit: host.interfaces(bytes).await?,
    })
}

fn damaged(error: &wasmparser::BinaryReaderError) -> PluginError {
    let message = text::line(error.message(), 300);
    PluginError::new(
        Code::Format,
        format!(
            "the component is damaged at byte {}: {message}",
            error.offset()
        ),
    )
}

#[derive(Default)]
struct Walk {
    parts: Vec<Part>,
    /// The part that is being read, below those that it lies in.
    open: Vec<usize>,
    producers: BTreeMap<String, Vec<String>>,
}

impl Walk {
    fn take(&mut self, payload: &Payload<'_>) {
        match payload {
            Payload::Version { encoding, .. } => self.begin(*encoding),
            Payload::End(_) => drop(self.open.pop()),
            Payload::CodeSectionStart { count, range, .. } => {
                self.add("code", range.len());
                if let Some(part) = self.current() {
                    part.functions = part.functions.saturating_add(*count);
                }
            }
            Payload::CodeSectionEntry(_) => {}
            Payload::CustomSection(section) => {
                let name = format!("custom {}", text::line(section.name(), 60));
                self.add(&name, section.data().len());
                if let KnownCustom::Producers(reader) = section.as_known() {
                    self.read_producers(reader);
                }
            }
            // The bytes of nested parts are counted there.
            Payload::ModuleSection { .. } => self.add("module", 0),
            Payload::ComponentSection { .. } => self.add("component", 0),
            other => {
                if let Some((id, range)) = other.as_section() {
                    let is_component = self.current().is_some_and(|part| part.kind == "component");
                    self.add(section_name(id, is_component), range.len());
                }
            }
        }
    }

    fn begin(&mut self, encoding: Encoding) {
        self.parts.push(Part {
            kind: match encoding {
                Encoding::Component => "component",
                Encoding::Module => "module",
            },
            depth: self.open.len(),
            sections: BTreeMap::new(),
            functions: 0,
        });
        self.open.push(self.parts.len().saturating_sub(1));
    }

    fn current(&mut self) -> Option<&mut Part> {
        let at = *self.open.last()?;
        self.parts.get_mut(at)
    }

    fn add(&mut self, name: &str, bytes: usize) {
        if let Some(part) = self.current() {
            let section = part.sections.entry(name.to_owned()).or_default();
            section.count = section.count.saturating_add(1);
            section.bytes = section.bytes.saturating_add(bytes as u64);
        }
    }

    fn read_producers(&mut self, reader: wasmparser::ProducersSectionReader<'_>) {
        for field in reader.into_iter().flatten() {
            let values = self
                .producers
                .entry(text::line(field.name, 60))
                .or_default();
            for value in field.values.into_iter().flatten() {
                let shown = text::line(&format!("{} {}", value.name, value.version), 120);
                if !values.contains(&shown) {
                    values.push(shown);
                }
            }
        }
    }
}

/// The names of the binary format's specification.
fn section_name(id: u8, is_component: bool) -> &'static str {
    const MODULE: [&str; 14] = [
        "custom",
        "type",
        "import",
        "function",
        "table",
        "memory",
        "global",
        "export",
        "start",
        "element",
        "code",
        "data",
        "data count",
        "tag",
    ];
    const COMPONENT: [&str; 12] = [
        "custom",
        "module",
        "core instance",
        "core type",
        "component",
        "instance",
        "alias",
        "type",
        "canonical function",
        "start",
        "import",
        "export",
    ];
    let names: &[&'static str] = if is_component { &COMPONENT } else { &MODULE };
    names.get(usize::from(id)).copied().unwrap_or("other")
}
