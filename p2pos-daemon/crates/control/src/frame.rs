//! The control socket's frames: u32 big-endian length, then one JSON value.
//!
//! Owns the length rule and the deadlines of a frame under way; refuses to know what the JSON means.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Largest frame in bytes, both ways. A status of a thousand peers is about 300 KiB; half of this would come close,
/// double would only help a broken asker.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// A frame whose first byte has come must be whole by then: both ends are on one machine.
const FRAME_ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// A reader that takes nothing for this long is given up; a stopped terminal (Ctrl-S) may well take some seconds.
const FRAME_LEAVES_WITHIN: Duration = Duration::from_secs(30);

/// Why a frame could not be moved. All but `Closed` are the other end's fault or the machine's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the other end closed the control socket")]
    Closed,
    #[error("a frame of {bytes} bytes was announced, the limit is {FRAME_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("a frame stopped half-way")]
    Stalled,
    #[error("a frame holds no valid JSON: {0}")]
    Json(#[source] serde_json::Error),
    #[error("the control socket failed: {0}")]
    Io(#[source] io::Error),
}

/// Reads one frame. Not cancel safe: a dropped read may have eaten half a frame.
pub(crate) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> Result<T, FrameError> {
    let first = from.read_u8().await.map_err(closed_or_io)?;
    let bytes =
        timeout(FRAME_ARRIVES_WITHIN, read_rest(first, from)).await.map_err(|_| FrameError::Stalled)??;
    serde_json::from_slice(&bytes).map_err(FrameError::Json)
}

async fn read_rest(first: u8, from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, FrameError> {
    let mut head = [first, 0, 0, 0];
    from.read_exact(&mut head[1..]).await.map_err(closed_or_io)?;
    let bytes = u32::from_be_bytes(head) as usize;
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes });
    }
    let mut body = vec![0; bytes];
    from.read_exact(&mut body).await.map_err(closed_or_io)?;
    Ok(body)
}

/// Writes one frame whole.
pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    value: &impl Serialize,
) -> Result<(), FrameError> {
    let frame = encode(value)?;
    timeout(FRAME_LEAVES_WITHIN, to.write_all(&frame))
        .await
        .map_err(|_| FrameError::Stalled)?
        .map_err(closed_or_io)
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value).map_err(FrameError::Json)?;
    let bytes = frame.len() - 4;
    match u32::try_from(bytes) {
        Ok(length) if bytes <= FRAME_BYTES_MAX => {
            frame[..4].copy_from_slice(&length.to_be_bytes());
            Ok(frame)
        }
        _ => Err(FrameError::TooLarge { bytes }),
    }
}

fn closed_or_io(error: io::Error) -> FrameError {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    if matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset) {
        return FrameError::Closed;
    }
    FrameError::Io(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes()[..], body].concat()
    }

    #[tokio::test]
    async fn a_frame_comes_back_as_it_went() {
        let frame = encode(&"hello").unwrap();
        assert_eq!(frame, framed(b"\"hello\""));
        assert_eq!(read::<String>(&mut &frame[..]).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn every_truncation_is_a_closed_socket_and_no_panic() {
        let frame = framed(b"[1,2,3]");
        for cut in 0..frame.len() {
            let error = read::<Vec<u8>>(&mut &frame[..cut]).await.unwrap_err();
            assert!(matches!(error, FrameError::Closed), "cut at {cut}: {error}");
        }
    }

    #[tokio::test]
    async fn the_limit_passes_and_one_more_byte_does_not() {
        let filler = "x".repeat(FRAME_BYTES_MAX - 2);
        let frame = encode(&filler).unwrap();
        assert_eq!(read::<String>(&mut &frame[..]).await.unwrap(), filler);
        assert!(matches!(encode(&format!("{filler}x")), Err(FrameError::TooLarge { .. })));
        let long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
        assert!(matches!(read::<String>(&mut &long[..]).await, Err(FrameError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn a_browser_is_cut_off_at_its_first_four_bytes() {
        let error = read::<String>(&mut &b"GET / HTTP/1.1\r\n"[..]).await.unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_stops_half_way_is_given_up() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&[0, 0]).await.unwrap();
        assert!(matches!(read::<String>(&mut ours).await, Err(FrameError::Stalled)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (mut ours, _theirs) = tokio::io::duplex(8);
        assert!(matches!(write(&mut ours, &"much more than eight bytes").await, Err(FrameError::Stalled)));
    }
}
