//! One question to a gateway by UDP, repeated until it is answered or given up.
//!
//! The socket is connected, so the kernel passes on only what comes from the gateway's address and port (RFC 6886 s3.1
//! asks for that check), and tells at once when nobody listens there.
//!
//! Refuses to know: what is asked (the codecs do).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time};

/// The first wait for an answer; it doubles with each repetition (RFC 6886 s3.1). PCP would wait 3 s (RFC 6887 s8.1.1); both
/// are asked at once here, and a router that answers at all does so within milliseconds. See docs/deviations.md.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Questions sent at most: the waits sum up to 7.75 s. Fewer would lose to Wi-Fi that wakes up, more would only delay the
/// report that there is no such gateway.
const SENDS_MAX: u32 = 5;
/// The longest answer of the protocols asked here: RFC 6887 s7 bounds PCP at 1,100 bytes.
const ANSWER_BYTES_MAX: usize = 1100;
/// Datagrams looked at for one question. A host that floods us with wrong answers ends the question, not our patience.
const ANSWERS_MAX: usize = 32;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nothing came back in 7.75 s.
    #[error("the router does not answer")]
    Silent,
    /// The gateway says that nobody listens at this port.
    #[error("the router has the service switched off")]
    SwitchedOff,
    /// Too much came back that was no answer.
    #[error("the router answers with gibberish")]
    Gibberish,
    /// Our own system does not let us ask.
    #[error("the system does not let us ask: {0}")]
    System(io::Error),
}

/// The address of ours that a packet to `gateway` would have as its source.
///
/// # Errors
/// [`AskError::System`] if there is no route.
pub(crate) async fn local_toward(gateway: SocketAddr) -> Result<IpAddr, AskError> {
    let socket = connected(gateway).await.map_err(AskError::System)?;
    Ok(socket.local_addr().map_err(AskError::System)?.ip())
}

/// Asks `gateway` until `read` makes sense of an answer. Cancel-safe: dropping the call stops asking.
///
/// # Errors
/// [`AskError`], after 7.75 s at the latest.
pub(crate) async fn ask<T>(
    gateway: SocketAddr,
    question: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, AskError> {
    let socket = connected(gateway).await.map_err(AskError::System)?;
    let mut looked_at = 0;
    let mut wait = FIRST_WAIT;
    for _ in 0..SENDS_MAX {
        socket.send(question).await.map_err(blame)?;
        let until = time::Instant::now() + wait;
        while let Ok(received) = time::timeout_at(until, receive(&socket)).await {
            if let Some(answer) = read(&received?) {
                return Ok(answer);
            }
            looked_at += 1;
            if looked_at == ANSWERS_MAX {
                return Err(AskError::Gibberish);
            }
        }
        wait *= 2;
    }
    Err(AskError::Silent)
}

async fn connected(gateway: SocketAddr) -> io::Result<UdpSocket> {
    let any = super::pcp::any_of(gateway.ip());
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(gateway).await?;
    Ok(socket)
}

async fn receive(socket: &UdpSocket) -> Result<Vec<u8>, AskError> {
    let mut bytes = vec![0; ANSWER_BYTES_MAX];
    let length = socket.recv(&mut bytes).await.map_err(blame)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// An ICMP "port unreachable" of the gateway arrives as a refused connection.
fn blame(error: io::Error) -> AskError {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        AskError::SwitchedOff
    } else {
        AskError::System(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gateway() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
        let addr = socket.local_addr().expect("a bound socket has an address");
        (socket, addr)
    }

    #[tokio::test]
    async fn a_question_is_repeated_until_it_is_answered() {
        let (router, addr) = gateway().await;
        let answering = tokio::spawn(async move {
            let mut bytes = [0; 16];
            for _ in 0..2 {
                router.recv_from(&mut bytes).await.expect("the first questions are lost");
            }
            let (length, from) = router.recv_from(&mut bytes).await.expect("the third one is answered");
            router.send_to(&bytes[..length], from).await.expect("the answer goes out");
        });
        let answered = ask(addr, b"port?", |bytes| (bytes == b"port?").then_some(())).await;
        answered.expect("an answer came");
        answering.await.expect("the router ran");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told_from_silence() {
        let (router, addr) = gateway().await;
        drop(router);
        let outcome = ask(addr, b"port?", |_| Some(())).await;
        assert!(matches!(outcome, Err(AskError::SwitchedOff)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_router_that_floods_gibberish_ends_the_question() {
        let (router, addr) = gateway().await;
        tokio::spawn(async move {
            let mut bytes = [0; 16];
            let (_, from) = router.recv_from(&mut bytes).await.expect("a question comes");
            for _ in 0..2 * ANSWERS_MAX {
                // The asker may be gone by then, and that is what is tested.
                router.send_to(b"gibberish", from).await.ok();
            }
        });
        let outcome = ask(addr, b"port?", |bytes| (bytes == b"sense").then_some(())).await;
        assert!(matches!(outcome, Err(AskError::Gibberish)), "{outcome:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_router_is_given_up_after_less_than_eight_seconds() {
        let (_router, addr) = gateway().await;
        let began = time::Instant::now();
        let outcome = ask(addr, b"port?", |_| Some(())).await;
        assert!(matches!(outcome, Err(AskError::Silent)), "{outcome:?}");
        assert_eq!(began.elapsed().as_millis(), 7750);
    }
}
