//! Compiles the messages of proto/recording.proto without protoc, and keeps their descriptors: they are
//! embedded in every recording as its schema.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/recording.proto";
    println!("cargo:rerun-if-changed={proto}");
    let mut descriptors = protox::compile([proto], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    prost_build::Config::new().compile_fds(descriptors.clone())?;
    // Positions and comments of the source text would triple the schema's size in every recording.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("recording.fds"), descriptors.encode_to_vec())?;
    Ok(())
}
