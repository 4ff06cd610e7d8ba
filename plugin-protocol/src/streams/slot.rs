//! One stream, flow or detached stream, and what is known about its end.

use super::{Flow, Receiver, Sender, Sort, StreamEnd};
use crate::{
    code::End,
    message::{Cause, Role, StreamClosed},
};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) what: What,
    /// Handles in the application; a slot is forgotten when it is over and nobody holds it.
    pub(super) holders: u32,
    /// Whether the application has taken it; a stream opened by the other side waits for that.
    pub(super) is_taken: bool,
    pub(super) is_over: bool,
    pub(super) is_ready: bool,
    pub(super) is_credit_due: bool,
    /// The first thing that made it end otherwise than by fins.
    pub(super) cause: Option<(Cause, End)>,
    pub(super) closed: Option<StreamClosed>,
}

#[derive(Debug)]
pub(super) enum What {
    Stream { send: Sender, recv: Receiver },
    Flow(Flow),
    Detached { ended: Option<StreamEnd> },
}

pub(super) const fn handles(sort: Sort) -> u32 {
    match sort {
        Sort::Stream => 2,
        Sort::Flow | Sort::Detached => 1,
    }
}

/// Holders of what the other side opened, until the application has answered. A plugin's application may answer when the
/// stream has long ended, and shall still hear how; the daemon's takes it or refuses it in the same moment.
pub(super) const fn offer_holders(role: Role) -> u32 {
    match role {
        Role::Plugin => 1,
        Role::Daemon => 0,
    }
}

impl What {
    pub(super) const fn sort(&self) -> Sort {
        match self {
            Self::Stream { .. } => Sort::Stream,
            Self::Flow(_) => Sort::Flow,
            Self::Detached { .. } => Sort::Detached,
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        match self {
            Self::Stream { send, recv } => send.is_over() && recv.is_over(),
            Self::Flow(flow) => flow.ended.is_some(),
            Self::Detached { ended } => ended.is_some(),
        }
    }

    pub(super) fn end(&mut self, end: StreamEnd) {
        match self {
            Self::Stream { send, recv } => {
                send.end(end);
                recv.end(end);
            }
            Self::Flow(flow) => {
                flow.outgoing.clear();
                flow.incoming.clear();
                flow.ended.get_or_insert(end);
            }
            Self::Detached { ended } => {
                ended.get_or_insert(end);
            }
        }
    }

    pub(super) fn end_unfinished(&mut self, end: StreamEnd) {
        match self {
            Self::Stream { send, recv } => {
                send.end(end);
                recv.end_unfinished(end);
            }
            Self::Flow(_) | Self::Detached { .. } => self.end(end),
        }
    }
}

impl Slot {
    pub(super) const fn sender(&mut self) -> Option<&mut Sender> {
        match &mut self.what {
            What::Stream { send, .. } => Some(send),
            What::Flow(_) | What::Detached { .. } => None,
        }
    }

    pub(super) const fn receiver(&mut self) -> Option<&mut Receiver> {
        match &mut self.what {
            What::Stream { recv, .. } => Some(recv),
            What::Flow(_) | What::Detached { .. } => None,
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.is_over && self.holders == 0
    }
}

impl Slot {
    /// What the daemon tells the plugin about the end.
    pub(super) fn facts(&self) -> StreamClosed {
        let (bytes_in, bytes_out) = match &self.what {
            What::Stream { send, recv } => (send.bytes, recv.bytes),
            What::Flow(flow) => (flow.bytes_sent, flow.bytes_received),
            What::Detached { .. } => (0, 0),
        };
        match self.cause {
            None => StreamClosed { cause: Cause::Finished, end: None, bytes_in, bytes_out },
            Some((cause, end)) => StreamClosed { cause, end: Some(end), bytes_in, bytes_out },
        }
    }
}

impl What {
    /// Whether it was ended as a whole; then the other side may still be talking about it without knowing.
    pub(super) const fn is_reset(&self) -> bool {
        match self {
            Self::Stream { send, recv } => send.is_reset() || recv.is_reset(),
            Self::Flow(flow) => flow.ended.is_some(),
            Self::Detached { ended } => ended.is_some(),
        }
    }
}

impl Role {
    /// What our own reset is called in StreamClosed: the daemon acts for the other plugin.
    pub(super) const fn own_cause(self) -> Cause {
        match self {
            Self::Daemon => Cause::ResetRemote,
            Self::Plugin => Cause::ResetLocal,
        }
    }

    pub(super) const fn other_cause(self) -> Cause {
        self.other().own_cause()
    }
}
