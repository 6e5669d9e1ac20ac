#!/bin/sh
# Builds plugin.wasm. Needs Rust with the target wasm32-wasip2 (`rustup target add wasm32-wasip2`).
set -eu
cd "$(dirname "$0")"
cargo build --release --target wasm32-wasip2
cp "${CARGO_TARGET_DIR:-target}/wasm32-wasip2/release/plugin.wasm" plugin.wasm
