//! What a guest may import: the `host` interface, and WASI 0.2 with nothing behind it.
//!
//! No directory, variable, argument, network or real clock is linked. Other `wasi:` interfaces, sockets and http above
//! all, become stubs: toolchains import them even when unused, so a component that has them loads, and a call of one ends
//! the guest's call with a denial. Every other import is refused at load.

use semver::Version;
use serde::{Deserialize, Serialize};
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, HasData, HasSelf, Linker, LinkerInstance, ResourceTable, ResourceType,
};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView};

use super::bindings::host;
use super::error::{Code, PluginError};
use super::state::State;
use super::text;

/// The package of the contract.
pub(super) const PACKAGE: &str = "agenticore:plugin";
/// The version of the contract that this host speaks; it takes the same major version up to this one.
pub(super) const VERSION: Version = Version::new(1, 1, 0);

/// What the linker below offers of WASI, without versions.
const LINKED: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// One import of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Its name, with the version.
    pub name: String,
    /// Whether it is a stub that refuses every call; `plugin check --strict` names these.
    pub refused: bool,
}

impl Import {
    /// Whether it is a part of the network.
    #[must_use]
    pub fn is_network(&self) -> bool {
        is_network(&self.name)
    }
}

/// Whether the import of that name is a part of the network.
pub(super) fn is_network(name: &str) -> bool {
    ["wasi:sockets/", "wasi:http/"]
        .iter()
        .any(|package| name.starts_with(package))
}

impl host::Host for State {
    fn log(&mut self, level: host::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            host::Level::Debug => "debug",
            host::Level::Info => "info",
            host::Level::Warn => "warn",
            host::Level::Error => "error",
        };
        self.write_log(level, &message)
    }
}

/// `wasi:io` works on the table of resources alone.
struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// The linker that every component starts from.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    io::error::add_to_linker::<State, Io>(l, |state| state.ctx().table)?;
    io::poll::add_to_linker::<State, Io>(l, |state| state.ctx().table)?;
    io::streams::add_to_linker::<State, Io>(l, |state| state.ctx().table)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    random::random::add_to_linker::<State, WasiRandom>(l, State::random)?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, State::random)?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, State::random)?;
    host::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    Ok(linker)
}

/// Lists the imports of a component and gives the refused ones a stub.
///
/// # Errors
///
/// [`Code::Api`] for a version of the contract that this host does not speak, [`Code::Import`] for anything foreign.
pub(super) fn satisfy(
    linker: &mut Linker<State>,
    component: &Component,
) -> Result<Vec<Import>, PluginError> {
    let engine = component.engine().clone();
    let mut imports = Vec::new();
    // A resource that an earlier import brought is only an alias in a later one, and not to be defined again.
    let mut known = Vec::new();
    for (name, import) in component.component_type().imports(&engine) {
        let refused = is_refused(name)?;
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            return Err(foreign(name));
        };
        let mut stub = refused.then(|| linker.instance(name)).transpose();
        for (member, item) in instance.exports(&engine) {
            let is_alias = matches!(&item.ty, ComponentItem::Resource(ty) if known.contains(ty));
            if let ComponentItem::Resource(ty) = &item.ty {
                known.push(*ty);
            }
            if let Ok(Some(stub)) = &mut stub
                && !is_alias
            {
                refuse(stub, name, member, &item.ty).map_err(|error| unlinkable(name, &error))?;
            }
        }
        stub.map_err(|error| unlinkable(name, &error))?;
        imports.push(Import {
            name: name.to_owned(),
            refused,
        });
    }
    Ok(imports)
}

fn is_refused(name: &str) -> Result<bool, PluginError> {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let package = interface.split('/').next().unwrap_or_default();
    if package == PACKAGE {
        check_version(name, version)?;
        return match interface {
            "agenticore:plugin/host" | "agenticore:plugin/types" => Ok(false),
            _ => Err(foreign(name)),
        };
    }
    if package.starts_with("wasi:") {
        let linked = LINKED.contains(&interface) && version.starts_with("0.2.");
        return Ok(!linked);
    }
    Err(foreign(name))
}

/// Checks the version of an interface of the contract.
pub(super) fn check_version(name: &str, version: &str) -> Result<(), PluginError> {
    let known = Version::parse(version)
        .is_ok_and(|version| version.major == VERSION.major && version <= VERSION);
    if known {
        return Ok(());
    }
    let name = text::line(name, 200);
    let message = format!("the plugin uses `{name}`, and this host speaks {PACKAGE}@{VERSION}");
    Err(PluginError::new(Code::Api, message))
}

fn foreign(name: &str) -> PluginError {
    let name = text::line(name, 200);
    PluginError::new(
        Code::Import,
        format!("the plugin imports `{name}`, which the host does not offer"),
    )
}

fn unlinkable(name: &str, error: &wasmtime::Error) -> PluginError {
    let name = text::line(name, 200);
    PluginError::new(
        Code::Import,
        format!("the import `{name}` cannot be linked: {error}"),
    )
}

fn refuse(
    stub: &mut LinkerInstance<'_, State>,
    interface: &str,
    member: &str,
    item: &ComponentItem,
) -> wasmtime::Result<()> {
    match item {
        ComponentItem::ComponentFunc(_) => {
            let import = format!("{interface}#{member}");
            stub.func_new(member, move |mut store, _, _, _| {
                store.data_mut().refuse(&import)
            })
        }
        ComponentItem::Resource(_) => {
            stub.resource(member, ResourceType::host::<()>(), |_, _| Ok(()))
        }
        _ => Ok(()),
    }
}
