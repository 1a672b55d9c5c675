//! Compiles the messages of `proto/` with protox, so that nobody has to install protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}/posthorn");
    let files = protox::compile(["posthorn/v1/event.proto", "posthorn/v1/delivery.proto"], [root])?;
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
