//! Our half of what the echo plugin offers (`plugins/echo/README.md`): filling its sink, drawing from its source.

use bytes::BytesMut;
use p2pos_control::Failure;
use p2pos_plugin_echo::{COUNT_BYTES, HASH_BYTES, content};
use p2pos_plugin_protocol::client::Stream;
use sha2::{Digest as _, Sha256};

use super::traffic::read;
use crate::tool;

/// Bytes written at once.
const PIECE_BYTES: usize = 256 * 1024;

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
