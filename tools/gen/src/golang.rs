//! What the Go example's generated code was made from: protoc-gen-go puts the descriptor into it, byte by byte. Its own generator is no part
//! of this checkout, so the code cannot be made anew here; but that its shapes are those of the `.proto` can be seen.

use anyhow::{Context as _, Result};
use protox::prost::Message as _;
use protox::prost_reflect::prost_types::FileDescriptorProto;

/// Where the bytes stand in the generated code.
const BEGIN: &str = "_rawDesc = []byte{";

/// Whether the code was made from these shapes. Comments, the file's place and a generator's options are not shapes.
///
/// # Errors
/// If there is no descriptor in the code.
pub(crate) fn is_made_from(code: &str, now: &FileDescriptorProto) -> Result<bool> {
    Ok(bare(embedded(code)?) == bare(now.clone()))
}

fn embedded(code: &str) -> Result<FileDescriptorProto> {
    let (_, from) = code.split_once(BEGIN).context("there is no descriptor in it")?;
    let (list, _) = from.split_once('}').context("the descriptor has no end")?;
    let bytes: Result<Vec<u8>, _> = list
        .split(',')
        .map(str::trim)
        .filter(|byte| !byte.is_empty())
        .map(|byte| u8::from_str_radix(byte.trim_start_matches("0x"), 16))
        .collect();
    FileDescriptorProto::decode(&*bytes.context("the descriptor is no list of bytes")?)
        .context("the descriptor is none")
}

fn bare(mut file: FileDescriptorProto) -> FileDescriptorProto {
    file.name = None;
    file.options = None;
    file.source_code_info = None;
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(package: &str) -> FileDescriptorProto {
        FileDescriptorProto { package: Some(package.to_owned()), ..FileDescriptorProto::default() }
    }

    #[test]
    fn code_is_told_from_code_of_other_shapes() {
        let bytes: Vec<String> =
            file("a.v1").encode_to_vec().iter().map(|byte| format!("0x{byte:02x}")).collect();
        let code = format!("var file_a_proto{BEGIN}\n\t{},\n}}\nvar other = []byte{{1}}", bytes.join(", "));
        assert!(is_made_from(&code, &file("a.v1")).unwrap());
        assert!(!is_made_from(&code, &file("a.v2")).unwrap());
        assert!(is_made_from("package pb", &file("a.v1")).is_err());
    }
}
