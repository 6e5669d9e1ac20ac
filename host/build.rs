//! Writes the tables of the files that are part of the binary: profiles, policies and built plugins.
//!
//! The tables name the files; the compiler reads their bytes (`include_bytes!`). `src/bundled.rs` owns what they mean.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Built for the tests of the plugin host; no user may run it.
const TEST_PLUGIN: &str = "test-guests.wasm";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()?;
    let profiles = root.join("profiles");
    let defaults = profiles.join("defaults.yml");

    let mut tables = String::new();
    writeln!(
        tables,
        "static DEFAULTS: &str = include_str!({:?});",
        display(&defaults)?
    )?;
    table(&mut tables, "PROFILES", &profiles, |path| {
        path.contains('/')
    })?;
    table(&mut tables, "POLICIES", &root.join("policies"), |path| {
        path.ends_with(".yml") && !path.contains('/')
    })?;
    table(&mut tables, "PLUGINS", &root.join("plugins/dist"), |path| {
        path.ends_with(".wasm") && !path.contains('/') && path != TEST_PLUGIN
    })?;

    table(&mut tables, "WIT", &root.join("wit"), |path| {
        path.ends_with(".wit")
    })?;
    // The manifest is a template: that of the workspace's member means nothing outside of it.
    table(&mut tables, "SDK", &root.join("plugins/sdk"), |path| {
        path.starts_with("src/")
    })?;
    table(
        &mut tables,
        "TEMPLATES",
        &root.join("plugins/templates"),
        |_| true,
    )?;

    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&out).join("bundled.rs"), tables)?;
    Ok(())
}

/// Writes the table of the files below `folder` whose relative path `wanted` accepts, sorted by path.
///
/// Cargo watches a folder with everything below it, so a file that is added, changed or removed makes the table anew. A folder
/// that does not exist gives an empty table and is looked for again at every build.
fn table(
    tables: &mut String,
    name: &str,
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", display(folder)?);
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();

    writeln!(tables, "static {name}: &[File] = &[")?;
    for file in &files {
        let path = display(file.strip_prefix(folder)?)?;
        if !wanted(&path) {
            continue;
        }
        let executable = fs::metadata(file)?.permissions().mode() & 0o100 != 0;
        let bytes = display(file)?;
        writeln!(
            tables,
            "    File {{ path: {path:?}, executable: {executable}, bytes: include_bytes!({bytes:?}) }},"
        )?;
    }
    writeln!(tables, "];")?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if name != ".gitkeep" && name != ".DS_Store" {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn display(path: &Path) -> Result<String, Box<dyn Error>> {
    Ok(path
        .to_str()
        .ok_or_else(|| format!("{} is not UTF-8", path.display()))?
        .to_owned())
}
