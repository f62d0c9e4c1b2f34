//! Compiles `proto/` with protox, so that building needs no protoc.

use std::error::Error;
use std::path::PathBuf;

/// Every service and what it imports.
const PROTOS: [&str; 5] = [
    "financing/v1/admin_service.proto",
    "financing/v1/command_service.proto",
    "financing/v1/dead_letter_service.proto",
    "financing/v1/query_service.proto",
    "registering/v1/integration_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // The reflection service hands these to clients that know nothing else.
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .codec_path("crate::api::codec::Protobuf")
        .compile_fds(descriptors)?;
    Ok(())
}
