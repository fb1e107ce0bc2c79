//! Compiles the messages of proto/recording.proto without protoc, and keeps the descriptors of each channel's
//! message: they are embedded in every recording as its schema.

use prost::Message as _;

/// A channel's message, and the others that it is made of.
const SCHEMAS: [(&str, &[&str]); 6] = [
    ("Packets", &[]),
    ("Kernel", &["Stamp", "FiveTuple", "Endpoint"]),
    ("L7", &["Stamp", "FiveTuple", "Endpoint"]),
    ("System", &["Stamp"]),
    ("Mark", &["Stamp"]),
    ("Loss", &["Stamp"]),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/recording.proto";
    println!("cargo:rerun-if-changed={proto}");
    let mut descriptors = protox::compile([proto], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    prost_build::Config::new()
        .extern_path(".faultline.Kernel.Batch", "crate::kernel::Columns")
        .compile_fds(descriptors.clone())?;
    // Positions and comments of the source text would triple the schema's size in every recording.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    for (message, parts) in SCHEMAS {
        let mut schema = descriptors.clone();
        for file in &mut schema.file {
            file.message_type.retain(|kind| kind.name() == message || parts.contains(&kind.name()));
        }
        std::fs::write(out.join(format!("{message}.fds")), schema.encode_to_vec())?;
    }
    Ok(())
}
