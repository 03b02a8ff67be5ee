//! Compiles `/proto` without `protoc`, and keeps the descriptors for gRPC reflection.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files =
        ["latitude/v1/latitude.proto", "latitude/v1/admin.proto", "latitude/peer/v1/peer.proto"];
    let descriptors = protox::compile(files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Messages that are counted while they are decoded.
    let commands = [".latitude.v1.CommandFrame", ".latitude.v1.BatchRequest"];
    let config = tonic_prost_build::configure().bytes(".");
    let config =
        commands.iter().fold(config, |config, name| config.extern_path(*name, "crate::Commands"));
    config.compile_fds(descriptors)?;
    Ok(())
}
