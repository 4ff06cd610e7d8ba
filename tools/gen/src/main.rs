//! Makes the committed protobuf code of both protocols. Owns the table of outputs and the generator's options;
//! knows nothing of what the messages mean. Run through `cargo xtask gen`, from the root of the checkout.
//!
//! `gen` writes, `gen --check` only compares. Output goes through rustfmt, so that `cargo fmt --check` has nothing to say about it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// One `.proto` file and the Rust file made from it.
struct Output {
    proto: &'static str,
    rust: &'static str,
}

const OUTPUTS: &[Output] = &[
    Output { proto: "plugin-protocol/proto/plugin.proto", rust: "plugin-protocol/src/pb/plugin_v1.rs" },
    Output {
        proto: "p2pos-daemon/crates/peer-protocol/proto/peer.proto",
        rust: "p2pos-daemon/crates/peer-protocol/src/pb/peer_v1.rs",
    },
];

fn main() -> Result<ExitCode> {
    let is_check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("unknown argument {other:?}, expected nothing or --check"),
    };
    let mut stale = 0;
    for output in OUTPUTS {
        let made = rust_code(output.proto)?;
        let found = std::fs::read_to_string(output.rust).unwrap_or_default();
        if made == found {
            continue;
        }
        if is_check {
            stale += 1;
            eprintln!("{} is not what {} makes: run `cargo xtask gen`", output.rust, output.proto);
        } else {
            std::fs::write(output.rust, made).with_context(|| format!("write {}", output.rust))?;
            eprintln!("wrote {}", output.rust);
        }
    }
    Ok(if stale == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compiles one `.proto` file to formatted Rust. `bytes` fields become `Bytes`, so that payloads are not copied on decode.
fn rust_code(proto: &str) -> Result<String> {
    let path = Path::new(proto);
    let folder = path.parent().context("a .proto path has a folder")?;
    let files = protox::compile([path], [folder]).with_context(|| format!("compile {proto}"))?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    let modules = files
        .file
        .into_iter()
        .map(|file| (prost_build::Module::from_protobuf_package_name(file.package()), file));
    let mut made = config.generate(modules.collect()).with_context(|| format!("generate from {proto}"))?;
    ensure!(made.len() == 1, "{proto} makes {} modules, expected one package without imports", made.len());
    let body = made.drain().next().map(|(_, code)| code).context("exactly one module was made")?;
    let name = path.file_name().context("a .proto path has a name")?.to_string_lossy();
    rustfmt(&format!(
        "// @generated from {name} by `cargo xtask gen`: change the .proto file, not this one.\n{body}"
    ))
}

fn rustfmt(code: &str) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path", "rustfmt.toml"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start rustfmt (rustup component add rustfmt)")?;
    // rustfmt reads everything before it writes, so writing first cannot block for ever.
    child.stdin.take().context("stdin was asked to be piped")?.write_all(code.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "rustfmt refused the generated code");
    Ok(String::from_utf8(output.stdout)?)
}
