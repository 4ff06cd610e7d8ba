//! A request that waits for its answer.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::core::Shared;
use crate::{
    code::{Code, End},
    message::{Body, ErrorReply, Rid},
};

/// Says why a request brought no good answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The other side said no, or we are at a limit ourselves.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Box<ErrorReply>),
    /// The session ended first.
    #[error("the session is over: {0}")]
    Ended(End),
}

impl RequestError {
    pub(super) fn refused(code: Code, message: String) -> Self {
        Self::Refused(Box::new(ErrorReply::new(code, message)))
    }

    /// The code, whichever it was.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Refused(error) => error.code,
            Self::Ended(end) => end.code,
        }
    }

    /// As an answer for somebody who asked us.
    #[must_use]
    pub fn into_reply(self) -> ErrorReply {
        match self {
            Self::Refused(error) => *error,
            Self::Ended(end) => ErrorReply::new(end.code, "the session is over"),
        }
    }
}

/// The answer to come. Dropping it before it is there gives the request up: a plugin says Cancel.
#[derive(Debug)]
#[must_use = "dropping an Answer cancels its request"]
pub struct Answer {
    shared: Arc<Shared>,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Rid),
    Failed(RequestError),
    Done,
}

impl Answer {
    pub(super) fn new(shared: Arc<Shared>, rid: Result<Rid, RequestError>) -> Self {
        let state = rid.map_or_else(State::Failed, State::Waiting);
        Self { shared, state }
    }
}

impl Future for Answer {
    type Output = Result<Body, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match std::mem::replace(&mut self.state, State::Done) {
            State::Failed(error) => Some(Err(error)),
            State::Waiting(rid) => {
                let answer = self.shared.lock().poll_answer(rid, cx.waker());
                if answer.is_none() {
                    self.state = State::Waiting(rid);
                }
                answer
            }
            State::Done => None,
        };
        answer.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let State::Waiting(rid) = self.state {
            self.shared.lock().give_up(rid);
        }
    }
}
