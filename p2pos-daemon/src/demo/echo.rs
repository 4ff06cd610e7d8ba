//! Our half of what the echo plugin offers (`plugins/echo/README.md`): filling its sink, drawing from its source.

use bytes::{Bytes, BytesMut};
use p2pos_control::Failure;
use p2pos_plugin_protocol::client::Stream;
use sha2::{Digest as _, Sha256};

use super::traffic::read;
use crate::tool;

/// Sends back every byte.
pub(super) const ECHO_PROTOCOL: &str = "/echo/1";
/// Sends back every datagram.
pub(super) const DATAGRAM_PROTOCOL: &str = "/echo-datagram/1";
/// Reads to the end and answers with count and SHA-256.
pub(super) const SINK_PROTOCOL: &str = "/sink/1";
/// Sends as much as it is asked for, and the SHA-256 of it.
pub(super) const SOURCE_PROTOCOL: &str = "/source/1";

/// Bytes written at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of different content before it begins again. Prime, so that pieces never look alike at the same place.
const CONTENT_BYTES: usize = 4_194_301;
const COUNT_BYTES: usize = 8;
const HASH_BYTES: usize = 32;

/// Sends so many bytes into the sink. Whether it received exactly those.
pub(super) async fn fill(
    mut stream: Stream,
    bytes: u64,
    mut moved: impl FnMut(usize),
) -> Result<bool, Failure> {
    let content = content();
    let mut hash = Sha256::new();
    let (mut left, mut at) = (bytes, 0);
    while left > 0 {
        let fitting = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES).min(content.len() - at);
        let piece = content.slice(at..at + fitting);
        hash.update(&piece);
        stream.write(piece).await.map_err(tool::failed)?;
        moved(fitting);
        left -= fitting as u64;
        at = (at + fitting) % content.len();
    }
    stream.close_write().map_err(tool::failed)?;
    let mut answer = BytesMut::new();
    while let Some(more) = read(&mut stream).await? {
        answer.extend_from_slice(&more);
        if answer.len() > COUNT_BYTES + HASH_BYTES {
            return Err(Failure::failed("the sink answered far more than it should"));
        }
    }
    let (count, theirs) = answer.split_at(COUNT_BYTES.min(answer.len()));
    Ok(count == bytes.to_be_bytes() && theirs == hash.finalize().as_slice())
}

/// Draws so many bytes from the source. Whether exactly those came that it sent.
pub(super) async fn draw(
    mut stream: Stream,
    bytes: u64,
    mut moved: impl FnMut(usize),
) -> Result<bool, Failure> {
    stream.write(bytes.to_be_bytes().to_vec()).await.map_err(tool::failed)?;
    stream.close_write().map_err(tool::failed)?;
    let mut hash = Sha256::new();
    let mut left = bytes;
    let mut theirs = BytesMut::new();
    while let Some(mut piece) = read(&mut stream).await? {
        let fitting = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let content = piece.split_to(fitting);
        hash.update(&content);
        moved(fitting);
        left -= fitting as u64;
        theirs.extend_from_slice(&piece);
        if theirs.len() > HASH_BYTES {
            return Err(Failure::failed("the source sent far more than it was asked for"));
        }
    }
    Ok(left == 0 && theirs == hash.finalize().as_slice())
}

/// Bytes that no compression, no cache and no misplaced piece makes right by accident (xorshift64*).
fn content() -> Bytes {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut content = BytesMut::with_capacity(CONTENT_BYTES + 8);
    while content.len() < CONTENT_BYTES {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        content.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    content.truncate(CONTENT_BYTES);
    content.freeze()
}
