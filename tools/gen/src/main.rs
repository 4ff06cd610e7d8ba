//! Makes the committed protobuf code of both protocols, and guards what was released of the plugin protocol. Owns the table of outputs and
//! the generator's options; knows nothing of what the messages mean. Run through `cargo xtask`, from the root of the checkout.
//!
//! `gen` writes, `gen --check` only compares. Output goes through rustfmt, so that `cargo fmt --check` has nothing to say about it.
//! `gen --descriptors FILE` writes what a release keeps of the plugin protocol's shapes; `gen --releases` prints, a line each, what the
//! present file takes away from a release, and what it adds without a word in SPEC.md.

mod compatible;
mod golang;
mod paper;
mod tree;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use protox::prost::Message as _;
use protox::prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};

use self::compatible::Finding;

/// One `.proto` file and the Rust file made from it.
struct Output {
    proto: &'static str,
    rust: &'static str,
}

const PLUGIN: &str = "plugin-protocol/proto/plugin.proto";
const OUTPUTS: &[Output] = &[
    Output { proto: PLUGIN, rust: "plugin-protocol/src/pb/plugin_v1.rs" },
    Output {
        proto: "p2pos-daemon/crates/peer-protocol/proto/peer.proto",
        rust: "p2pos-daemon/crates/peer-protocol/src/pb/peer_v1.rs",
    },
];
/// Code that another generator made from [`PLUGIN`].
const GO: &str = "plugins/echo-go/p2pos/pb/plugin.pb.go";
/// What says in words what the plugin protocol's messages mean, and what of it is fixed for ever.
const SPEC: &str = "plugin-protocol/SPEC.md";
const RELEASES: &str = "plugin-protocol/releases";
const DESCRIPTORS: &str = "descriptors.binpb";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => code(false),
        ["--check"] => code(true),
        ["--descriptors", file] => {
            std::fs::write(file, descriptors(PLUGIN)?.encode_to_vec())
                .with_context(|| format!("write {file}"))?;
            Ok(ExitCode::SUCCESS)
        }
        ["--releases"] => {
            for finding in against_releases()? {
                println!("{PLUGIN}:{}: {}", finding.line, finding.what);
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("expected nothing, --check, --descriptors FILE or --releases, got {}", words.join(" ")),
    }
}

/// Makes the Rust code, or only compares it.
fn code(is_check: bool) -> Result<ExitCode> {
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
    let go = std::fs::read_to_string(GO).with_context(|| format!("read {GO}"))?;
    if !golang::is_made_from(&go, &single(&compile(PLUGIN)?)?).with_context(|| format!("read {GO}"))? {
        stale += 1;
        eprintln!("{GO} is not of the shapes of {PLUGIN}: run protoc with protoc-gen-go, as its README says");
    }
    Ok(if stale == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares the present plugin protocol with each release of it, and with its paper.
fn against_releases() -> Result<Vec<Finding>> {
    let now = single(&compile(PLUGIN)?)?;
    let prose = std::fs::read_to_string(SPEC).with_context(|| format!("read {SPEC}"))?;
    let mut findings = compatible::bad_manners(&now);
    for (name, old) in releases()? {
        let next = format!(
            "; release {name} has it: things are only ever added. Undo that, or begin the next version of the protocol ({SPEC}, 13)"
        );
        findings.extend(
            compatible::breaks(&old, &now)
                .into_iter()
                .map(|finding| Finding { what: finding.what + &next, ..finding }),
        );
        findings.extend(paper::unspoken(&compatible::additions(&old, &now), &prose));
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// The released descriptors, by the release's name.
fn releases() -> Result<Vec<(String, FileDescriptorProto)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(RELEASES).with_context(|| format!("read {RELEASES}"))? {
        let entry = entry?;
        let file = entry.path().join(DESCRIPTORS);
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let set = FileDescriptorSet::decode(&*bytes).with_context(|| format!("decode {}", file.display()))?;
        found.push((entry.file_name().to_string_lossy().into_owned(), single(&set)?));
    }
    ensure!(!found.is_empty(), "no release in {RELEASES}");
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// What a release keeps: everything but comments and places, so that two machines make the same bytes.
fn descriptors(proto: &str) -> Result<FileDescriptorSet> {
    let mut files = compile(proto)?;
    for file in &mut files.file {
        file.source_code_info = None;
    }
    Ok(files)
}

fn compile(proto: &str) -> Result<FileDescriptorSet> {
    let path = Path::new(proto);
    let folder = path.parent().context("a .proto path has a folder")?;
    protox::compile([path], [folder]).with_context(|| format!("compile {proto}"))
}

fn single(set: &FileDescriptorSet) -> Result<FileDescriptorProto> {
    ensure!(set.file.len() == 1, "{} files instead of one without imports", set.file.len());
    Ok(set.file[0].clone())
}

/// Compiles one `.proto` file to formatted Rust. `bytes` fields become `Bytes`, so that payloads are not copied on decode.
fn rust_code(proto: &str) -> Result<String> {
    let files = compile(proto)?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    let modules = files
        .file
        .into_iter()
        .map(|file| (prost_build::Module::from_protobuf_package_name(file.package()), file));
    let mut made = config.generate(modules.collect()).with_context(|| format!("generate from {proto}"))?;
    ensure!(made.len() == 1, "{proto} makes {} modules, expected one package without imports", made.len());
    let body = made.drain().next().map(|(_, code)| code).context("exactly one module was made")?;
    let name = PathBuf::from(proto);
    let name = name.file_name().context("a .proto path has a name")?.to_string_lossy();
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

/// Compiles a text, for tests.
#[cfg(test)]
fn compile_text(name: &str, text: &str) -> Result<FileDescriptorProto> {
    use protox::file::{File, FileResolver};

    struct Text(String, String);
    impl FileResolver for Text {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            if name == self.0 {
                File::from_source(name, &self.1)
            } else {
                Err(protox::Error::file_not_found(name))
            }
        }
    }
    let mut compiler = protox::Compiler::with_file_resolver(Text(name.to_owned(), text.to_owned()));
    single(&compiler.include_source_info(true).open_file(name)?.file_descriptor_set())
}
