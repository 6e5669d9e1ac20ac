//! `cargo xtask image`: the container image with the server alone, built by the Dockerfile with what this machine has.
//!
//! The binary is the release that was built before, so nothing is compiled in the image.

use std::process::{Command, ExitCode};

use agenticore_tests::{Image, output_of, server_binary};
use anyhow::{Error, Result, bail};

/// What the image is called, as Compose, the manifests and the chart call it.
const NAME: &str = concat!("agenticore/agenticore:", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    let Some(reason) = Image::unavailable() else {
        return without_a_daemon();
    };
    let daemon = Command::new("docker").arg("info").output();
    if !daemon.is_ok_and(|said| said.status.success()) {
        bail!("buildah cannot build it ({reason}), and no Docker daemon answers");
    }
    let context = Image::context(server_binary()).map_err(Error::msg)?;
    let mut docker = Command::new("docker");
    docker.arg("build").args(Image::ARGUMENTS);
    docker.args(["--tag", NAME]).arg(&context);
    output_of(&mut docker).map_err(Error::msg)?;
    println!("built {NAME}");
    Ok(())
}

fn without_a_daemon() -> Result<()> {
    let image = Image::build(server_binary()).map_err(Error::msg)?;
    let file = image.folder.join("agenticore.tar");
    image.archive(&file, NAME);
    let (all, own) = (
        image.size / 1_000_000,
        (image.size - image.base_size) / 1_000_000,
    );
    println!("built {NAME}: {all} MB, {own} MB of them on top of the base");
    println!("docker load --input {}", file.display());
    Ok(())
}
