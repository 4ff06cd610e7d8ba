//! What happens to the paths of a connection, as a stream.

use std::{fmt, future::poll_fn, net::SocketAddr, pin::Pin, task::Poll};

use futures_core::Stream;

use crate::{mux::fake::FakeAddr, socket::real_address};

use super::{PathId, PathStatus};

/// Something happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEvent {
    /// A path can carry data: one that we opened, or that the peer or a punching round did.
    Opened(PathId),
    /// A path is of no use any more. May come without [`PathEvent::Opened`] before it.
    Abandoned {
        /// Which.
        id: PathId,
        /// Why.
        why: Abandoned,
    },
    /// The peer says which paths its data takes: see [`super::Paths::mirror`].
    PeerStatus {
        /// Which path.
        id: PathId,
        /// What the peer lets it carry.
        status: PathStatus,
    },
    /// The peer sees us at this address. Its word alone.
    Observed {
        /// On which path.
        id: PathId,
        /// The address.
        address: SocketAddr,
    },
    /// The peer told of a candidate of its own, or took one back: read [`super::Paths::remote_candidates`].
    Candidates,
    /// Events were missed because they were not read in time: read [`super::Paths::list`] and the candidates anew, and
    /// set statuses that matter again.
    Missed,
}

/// Why a path was abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// We closed it.
    ByUs,
    /// The peer closed it.
    ByPeer,
    /// Nothing was heard on it for too long.
    Silent,
    /// Our network changed under it.
    NetworkChanged,
}

/// A stream of [`PathEvent`]s. Does not hold the connection open.
pub struct PathEvents {
    paths: noq::PathEvents,
    candidates: noq::NatTraversalUpdates,
    closed: noq::OnClosed,
}

impl fmt::Debug for PathEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathEvents").finish_non_exhaustive()
    }
}

impl PathEvents {
    pub(super) fn new(connection: &noq::Connection) -> Self {
        Self {
            paths: connection.path_events(),
            candidates: connection.nat_traversal_updates(),
            closed: connection.on_closed(),
        }
    }

    /// Waits for the next event; `None` once the connection is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<PathEvent> {
        poll_fn(|cx| {
            loop {
                match Pin::new(&mut self.paths).poll_next(cx) {
                    Poll::Ready(Some(Ok(event))) => match translate(event) {
                        Some(event) => return Poll::Ready(Some(event)),
                        None => continue,
                    },
                    Poll::Ready(Some(Err(noq::Lagged(_)))) => return Poll::Ready(Some(PathEvent::Missed)),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => {}
                }
                if let Poll::Ready(Some(_)) = Pin::new(&mut self.candidates).poll_next(cx) {
                    return Poll::Ready(Some(PathEvent::Candidates));
                }
                return Pin::new(&mut self.closed).poll(cx).map(|_| None);
            }
        })
        .await
    }
}

/// `None` for what is of no use to anybody here.
fn translate(event: noq::PathEvent) -> Option<PathEvent> {
    match event {
        noq::PathEvent::Established { id, .. } => Some(PathEvent::Opened(PathId(id))),
        noq::PathEvent::Abandoned { id, reason, .. } => {
            Some(PathEvent::Abandoned { id: PathId(id), why: reason_of(&reason) })
        }
        noq::PathEvent::RemoteStatus { id, status, .. } => {
            Some(PathEvent::PeerStatus { id: PathId(id), status: PathStatus::from_noq(status) })
        }
        // Over a relay the peer sees its own made-up address, which says nothing about us.
        noq::PathEvent::ObservedAddr { id, addr, .. } => {
            let address = real_address(addr);
            let id = PathId(id);
            FakeAddr::of(address.ip()).is_none().then_some(PathEvent::Observed { id, address })
        }
        // The end of an abandoned path's statistics; and, since noq may add events, whatever it adds.
        noq::PathEvent::Discarded { .. } | _ => None,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "noq's type, which has a deprecated reason and may get more"
)]
fn reason_of(reason: &noq_proto::PathAbandonReason) -> Abandoned {
    match reason {
        noq_proto::PathAbandonReason::ApplicationClosed { .. } => Abandoned::ByUs,
        noq_proto::PathAbandonReason::RemoteAbandoned { .. } => Abandoned::ByPeer,
        noq_proto::PathAbandonReason::UnusableAfterNetworkChange => Abandoned::NetworkChanged,
        // Timeouts, and what noq may add.
        _ => Abandoned::Silent,
    }
}
