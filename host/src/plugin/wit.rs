//! The interfaces of a component as text in the language of `wit/`.
//!
//! A component has types by structure. Where an interface exports one under a name, as every interface made from WIT does, the name is
//! written in its place, and a type that another interface wrote down before is `use`d from there.

use std::fmt::Write as _;

use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentInstance, ComponentItem, Type};
use wasmtime::component::{Component, ResourceType};

use super::text;

/// Bytes of text: what a component calls itself is as long as it likes.
const MAX_TEXT: usize = 1 << 20;

/// Writes down what a compiled component imports and exports.
pub(super) fn of(engine: &Engine, component: &Component) -> String {
    let mut printer = Printer::default();
    let ty = component.component_type();
    for (name, item) in ty.imports(engine) {
        printer.item(engine, "import", name, &item.ty);
    }
    for (name, item) in ty.exports(engine) {
        printer.item(engine, "export", name, &item.ty);
    }
    let all = format!("world root {{\n{}}}\n{}", printer.world, printer.interfaces);
    text::block(&all, MAX_TEXT)
}

#[derive(Default)]
struct Printer {
    world: String,
    interfaces: String,
    /// Types with the names and interfaces they were written down under.
    known: Vec<Known>,
    resources: Vec<(String, ResourceType)>,
}

struct Known {
    interface: String,
    name: String,
    ty: Type,
}

impl Printer {
    fn item(&mut self, engine: &Engine, verb: &str, name: &str, item: &ComponentItem) {
        match item {
            ComponentItem::ComponentInstance(instance) => {
                let _ = writeln!(self.world, "  {verb} {name};");
                // Imported and exported under one name, it is one interface.
                if !self.interfaces.contains(&format!("\ninterface {name} {{")) {
                    let body = self.interface(engine, name, instance);
                    let _ = write!(self.interfaces, "\ninterface {name} {{\n{body}}}\n");
                }
            }
            ComponentItem::ComponentFunc(func) => {
                let signature = self.signature(func, false);
                let _ = writeln!(self.world, "  {verb} {name}: {signature};");
            }
            _ => {
                let _ = writeln!(self.world, "  {verb} {name};");
            }
        }
    }

    fn interface(&mut self, engine: &Engine, interface: &str, of: &ComponentInstance) -> String {
        let mut body = String::new();
        for (name, item) in of.exports(engine) {
            match item.ty {
                ComponentItem::Type(ty) => self.define(&mut body, interface, name, ty),
                ComponentItem::Resource(ty) => {
                    let _ = writeln!(body, "  resource {name};");
                    self.resources.push((name.to_owned(), ty));
                }
                ComponentItem::ComponentFunc(func) => {
                    let is_method = name.starts_with("[method]");
                    let signature = self.signature(&func, is_method);
                    let shown = name.rsplit(']').next().unwrap_or(name);
                    let kind = match name.split_once(']') {
                        Some((kind, _)) => format!("{}] ", kind),
                        None => String::new(),
                    };
                    let _ = writeln!(body, "  {kind}{shown}: {signature};");
                }
                _ => {}
            }
        }
        body
    }

    fn define(&mut self, body: &mut String, interface: &str, name: &str, ty: Type) {
        let before = self
            .known
            .iter()
            .find(|known| known.name == name && known.ty == ty);
        if let Some(before) = before
            && before.interface != interface
        {
            let _ = writeln!(body, "  use {}.{{{name}}};", before.interface);
            return;
        }
        match &ty {
            Type::Record(record) => {
                let _ = writeln!(body, "  record {name} {{");
                for field in record.fields() {
                    let _ = writeln!(body, "    {}: {},", field.name, self.name(&field.ty));
                }
                body.push_str("  }\n");
            }
            Type::Variant(variant) => {
                let _ = writeln!(body, "  variant {name} {{");
                for case in variant.cases() {
                    let payload = case.ty.map(|ty| format!("({})", self.name(&ty)));
                    let _ = writeln!(body, "    {}{},", case.name, payload.unwrap_or_default());
                }
                body.push_str("  }\n");
            }
            Type::Enum(names) => words(body, "enum", name, names.names()),
            Type::Flags(names) => words(body, "flags", name, names.names()),
            other => {
                let _ = writeln!(body, "  type {name} = {};", self.structure(other));
            }
        }
        self.known.push(Known {
            interface: interface.to_owned(),
            name: name.to_owned(),
            ty,
        });
    }

    fn signature(&self, func: &ComponentFunc, is_method: bool) -> String {
        let parameters: Vec<String> = func
            .params()
            // The resource that a method belongs to.
            .skip(usize::from(is_method))
            .map(|(name, ty)| format!("{name}: {}", self.name(&ty)))
            .collect();
        let result = func.results().next();
        let result = result.map(|ty| format!(" -> {}", self.name(&ty)));
        format!(
            "func({}){}",
            parameters.join(", "),
            result.unwrap_or_default()
        )
    }

    /// The name of a type, or its structure where it has none.
    fn name(&self, ty: &Type) -> String {
        let named = matches!(
            ty,
            Type::Record(_) | Type::Variant(_) | Type::Enum(_) | Type::Flags(_)
        );
        if named && let Some(known) = self.known.iter().rev().find(|known| known.ty == *ty) {
            return known.name.clone();
        }
        self.structure(ty)
    }

    fn structure(&self, ty: &Type) -> String {
        let maybe = |ty: Option<Type>| ty.map_or_else(|| "_".to_owned(), |ty| self.name(&ty));
        match ty {
            Type::Bool => "bool".into(),
            Type::S8 => "s8".into(),
            Type::U8 => "u8".into(),
            Type::S16 => "s16".into(),
            Type::U16 => "u16".into(),
            Type::S32 => "s32".into(),
            Type::U32 => "u32".into(),
            Type::S64 => "s64".into(),
            Type::U64 => "u64".into(),
            Type::Float32 => "f32".into(),
            Type::Float64 => "f64".into(),
            Type::Char => "char".into(),
            Type::String => "string".into(),
            Type::ErrorContext => "error-context".into(),
            Type::List(list) => format!("list<{}>", self.name(&list.ty())),
            Type::FixedLengthList(list) => {
                format!("list<{}, {}>", self.name(&list.ty()), list.len())
            }
            Type::Map(map) => format!(
                "map<{}, {}>",
                self.name(&map.key()),
                self.name(&map.value())
            ),
            Type::Option(option) => format!("option<{}>", self.name(&option.ty())),
            Type::Result(result) => {
                format!("result<{}, {}>", maybe(result.ok()), maybe(result.err()))
            }
            Type::Tuple(tuple) => {
                let types: Vec<String> = tuple.types().map(|ty| self.name(&ty)).collect();
                format!("tuple<{}>", types.join(", "))
            }
            Type::Own(ty) => self.resource(ty),
            Type::Borrow(ty) => format!("borrow<{}>", self.resource(ty)),
            Type::Future(future) => format!("future<{}>", maybe(future.ty())),
            Type::Stream(stream) => format!("stream<{}>", maybe(stream.ty())),
            Type::Record(record) => {
                let fields: Vec<String> = record
                    .fields()
                    .map(|field| format!("{}: {}", field.name, self.name(&field.ty)))
                    .collect();
                format!("record {{ {} }}", fields.join(", "))
            }
            Type::Variant(variant) => {
                let cases: Vec<&str> = variant.cases().map(|case| case.name).collect();
                format!("variant {{ {} }}", cases.join(", "))
            }
            Type::Enum(names) => {
                format!(
                    "enum {{ {} }}",
                    names.names().collect::<Vec<_>>().join(", ")
                )
            }
            Type::Flags(names) => {
                format!(
                    "flags {{ {} }}",
                    names.names().collect::<Vec<_>>().join(", ")
                )
            }
        }
    }

    fn resource(&self, ty: &ResourceType) -> String {
        let known = self.resources.iter().rev().find(|(_, known)| known == ty);
        known.map_or_else(|| "resource".to_owned(), |(name, _)| name.clone())
    }
}

fn words<'a>(body: &mut String, kind: &str, name: &str, words: impl Iterator<Item = &'a str>) {
    let _ = writeln!(body, "  {kind} {name} {{");
    for word in words {
        let _ = writeln!(body, "    {word},");
    }
    body.push_str("  }\n");
}
