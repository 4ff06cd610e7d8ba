//! The states of a stream, and how things end, as tables: SPEC.md prints them, tests walk them.
//!
//! [`STATES`] is what a plugin's author has to know of a stream's life. A test below leads the machine into every state
//! and lets everything come that may come; tests/spec.rs compares SPEC.md, sections 5 and 7, with what stands here. So
//! the words, the table and the machine cannot drift apart.

use std::fmt;

/// Where a stream stands, seen from its plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamState {
    /// The plugin has sent Open.
    Opening,
    /// Incoming has come.
    Offered,
    /// Both directions are open.
    Open,
    /// The plugin writes no more.
    HalfLocal,
    /// The other side writes no more.
    HalfRemote,
    /// Both directions are over; the daemon's last word is to come.
    Ending,
    /// All is said.
    Closed,
}

impl fmt::Display for StreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Offered => "offered",
            Self::Open => "open",
            Self::HalfLocal => "half-local",
            Self::HalfRemote => "half-remote",
            Self::Ending => "ending",
            Self::Closed => "closed",
        })
    }
}

/// What can happen to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Said {
    /// The daemon's good answer to Open.
    Opened,
    /// The bad one.
    Error,
    /// The plugin's good answer to Incoming.
    Accept,
    /// The bad one.
    Reject,
    /// The plugin gives its Open up.
    Cancel,
    /// Bytes.
    Data,
    /// Credit.
    Window,
    /// A reader leaves.
    StopSending,
    /// The whole stream ends.
    Reset,
    /// The daemon's last word.
    StreamClosed,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What makes a stream leave a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// This was said, by whichever side may.
    Told(Said),
    /// The plugin sent its fin.
    FinSent,
    /// The other side's fin came.
    FinCame,
    /// The plugin said that it reads no more.
    StopSent,
    /// The other side reads no more.
    StopCame,
    /// The plugin did not answer Incoming in time.
    NoAnswer,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(said) => fmt::Display::fmt(said, f),
            Self::FinSent => f.write_str("fin sent"),
            Self::FinCame => f.write_str("fin came"),
            Self::StopSent => f.write_str("StopSending sent"),
            Self::StopCame => f.write_str("StopSending came"),
            Self::NoAnswer => f.write_str("10 s"),
        }
    }
}

/// One state, and what goes in it.
#[derive(Clone, Copy, Debug)]
pub struct StateRow {
    /// Which.
    pub state: StreamState,
    /// How one gets there, where that needs saying.
    pub by: &'static str,
    /// What may come from the daemon.
    pub may_come: &'static [Said],
    /// What the plugin may send.
    pub may_send: &'static [Said],
    /// What leads where.
    pub leaves: &'static [(Trigger, StreamState)],
}

/// Every state of a stream.
pub const STATES: [StateRow; 7] = {
    use Said::{Accept, Cancel, Data, Error, Opened, Reject, Reset, StopSending, StreamClosed, Window};
    use StreamState::{Closed, Ending, HalfLocal, HalfRemote, Offered, Open, Opening};
    use Trigger::{FinCame, FinSent, NoAnswer, StopCame, StopSent, Told};
    [
        StateRow {
            state: Opening,
            by: "Open sent",
            may_come: &[Opened, Error, StreamClosed],
            may_send: &[Data, Reset, Cancel],
            leaves: &[(Told(Opened), Open), (Told(Error), Closed), (Told(Reset), Ending)],
        },
        StateRow {
            state: Offered,
            by: "Incoming came",
            may_come: &[Data, Reset, StreamClosed],
            may_send: &[Accept, Reject],
            leaves: &[
                (Told(Accept), Open),
                (Told(Reject), Closed),
                (Told(Reset), Ending),
                (NoAnswer, Closed),
            ],
        },
        StateRow {
            state: Open,
            by: "",
            may_come: &[Data, Window, StopSending, Reset],
            may_send: &[Data, Window, StopSending, Reset],
            leaves: &[
                (FinSent, HalfLocal),
                (StopCame, HalfLocal),
                (FinCame, HalfRemote),
                (StopSent, HalfRemote),
                (Told(Reset), Ending),
            ],
        },
        StateRow {
            state: HalfLocal,
            by: "we write no more",
            may_come: &[Data, Window, StopSending, Reset],
            may_send: &[Window, StopSending, Reset],
            leaves: &[(FinCame, Ending), (StopSent, Ending), (Told(Reset), Ending)],
        },
        StateRow {
            state: HalfRemote,
            by: "they write no more",
            may_come: &[Window, StopSending, Reset],
            may_send: &[Data, Reset],
            leaves: &[(FinSent, Ending), (StopCame, Ending), (Told(Reset), Ending)],
        },
        StateRow {
            state: Ending,
            by: "",
            may_come: &[StreamClosed],
            may_send: &[],
            leaves: &[(Told(StreamClosed), Closed)],
        },
        StateRow { state: Closed, by: "", may_come: &[], may_send: &[], leaves: &[] },
    ]
};

/// One way in which things end.
#[derive(Clone, Copy, Debug)]
pub struct EndRow {
    /// What happens.
    pub event: &'static str,
    /// What the plugin on this side is told.
    pub here: &'static str,
    /// What the plugin at the other end is told.
    pub there: &'static str,
}

/// How things end, for both plugins. The first three are this crate's to show, the others the daemon's.
pub const ENDS: [EndRow; 13] = [
    EndRow { event: "both sent fin", here: "StreamClosed FINISHED", there: "the same" },
    EndRow {
        event: "plugin sends Reset{400, n}",
        here: "StreamClosed RESET_LOCAL 400 n",
        there: "Reset 400 n, StreamClosed RESET_REMOTE 400 n",
    },
    EndRow {
        event: "plugin sends StopSending{400, n}",
        here: "the direction ends; at last StreamClosed RESET_LOCAL",
        there: "StopSending 400 n; at last StreamClosed RESET_REMOTE",
    },
    EndRow {
        event: "plugin ends, crashes, is stopped",
        here: "(its session is over)",
        there: "Reset 403 PLUGIN_GONE; new opens get 306 while it restarts, 304 once it is disabled",
    },
    EndRow {
        event: "the plugin's session breaks a rule",
        here: "Error 1xx with rid 0, end of file",
        there: "Reset 403",
    },
    EndRow {
        event: "daemon of the plugin ends",
        here: "GoAway 105 if it could, end of file",
        there: "Reset 403 PLUGIN_GONE or 404 PATH_LOST",
    },
    EndRow {
        event: "the path to the peer is lost",
        here: "streams live on if another path is found; else Reset 404",
        there: "the same",
    },
    EndRow {
        event: "the other daemon dies",
        here: "Reset 404 after its silence was noticed",
        there: "(its session is over)",
    },
    EndRow {
        event: "a plugin reads slowly",
        here: "nothing; its Window frames are late",
        there: "writes wait",
    },
    EndRow {
        event: "a plugin does not read its socket",
        here: "Error 106 SLOW_CONSUMER, end of file",
        there: "Reset 403",
    },
    EndRow {
        event: "the user revokes the plugin",
        here: "Error 107 REVOKED, end of file",
        there: "Reset 403",
    },
    EndRow {
        event: "Incoming is not answered in 10 s",
        here: "StreamClosed RESET_REMOTE 207",
        there: "Error 306 NOT_READY",
    },
    EndRow { event: "Open is cancelled", here: "Error 208", there: "Reset 400 0, if it had got there" },
];

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        code::{Code, End},
        message::{Cause, Role, StreamClosed as Facts, StreamId, StreamMessage},
        streams::{Admission, Config, Credit, Sort, Streams},
    };

    const BYE: End = End::app(3);

    #[test]
    fn whatever_may_come_in_a_state_is_taken_in_it() {
        for row in &STATES {
            for said in row.may_come {
                let (mut streams, id) = streams_in(row.state);
                if let Some(message) = message(*said, id) {
                    assert_eq!(streams.handle(message), Ok(()), "{said} in {}", row.state);
                }
            }
        }
    }

    #[test]
    fn what_may_not_come_ends_the_session_or_crossed_the_end() {
        let (mut streams, id) = streams_in(StreamState::HalfRemote);
        assert!(streams.handle(message(Said::Data, id).unwrap()).is_err(), "Data after fin");
        for said in [Said::Data, Said::Window, Said::StopSending, Said::Reset] {
            for state in [StreamState::Ending, StreamState::Closed] {
                let (mut streams, id) = streams_in(state);
                assert_eq!(streams.handle(message(said, id).unwrap()), Ok(()), "{said} in {state}");
                assert_eq!(known(streams.state(id)), state);
            }
        }
    }

    #[test]
    fn every_trigger_leads_where_the_table_says() {
        for row in &STATES {
            for (trigger, next) in row.leaves {
                let (mut streams, id) = streams_in(row.state);
                pull(&mut streams, id, *trigger);
                assert_eq!(known(streams.state(id)), *next, "{trigger} in {}", row.state);
            }
        }
    }

    #[test]
    fn whatever_may_be_sent_in_a_state_can_be_sent() {
        for row in STATES.iter().filter(|row| row.may_send.contains(&Said::Data)) {
            let (mut streams, id) = streams_in(row.state);
            assert_eq!(streams.write(id, &mut [Bytes::from_static(b"x")]), Ok(1), "{}", row.state);
        }
        for row in STATES.iter().filter(|row| !row.may_send.contains(&Said::Data)) {
            let (mut streams, id) = streams_in(row.state);
            // An offered stream is the application's only once it has said Accept.
            let is_written = streams.write(id, &mut [Bytes::from_static(b"x")]).is_ok();
            assert_eq!(is_written, row.state == StreamState::Offered, "{}", row.state);
        }
    }

    /// The machine does not see answers: for it, what is opening or offered is open.
    fn known(state: StreamState) -> StreamState {
        match state {
            StreamState::Opening | StreamState::Offered | StreamState::Open => StreamState::Open,
            StreamState::HalfLocal | StreamState::HalfRemote | StreamState::Ending | StreamState::Closed => {
                state
            }
        }
    }

    /// A plugin's machine with a stream in this state. What an end by Reset looks like stands for all of Ending.
    fn streams_in(state: StreamState) -> (Streams, StreamId) {
        let credit = Credit::Counted(100);
        let config =
            Config { role: Role::Plugin, data_bytes_max: 100, streams_max: 1, send: credit, recv: credit };
        let mut streams = Streams::new(config);
        if state == StreamState::Offered {
            let id = StreamId::new(2).unwrap();
            assert_eq!(streams.handle_open(id, Sort::Stream), Ok(Admission::Admitted));
            return (streams, id);
        }
        let id = streams.open(Sort::Stream).unwrap();
        match state {
            StreamState::Opening | StreamState::Offered | StreamState::Open => {}
            StreamState::HalfLocal => pull(&mut streams, id, Trigger::FinSent),
            StreamState::HalfRemote => pull(&mut streams, id, Trigger::FinCame),
            StreamState::Ending => streams.reset(id, BYE),
            StreamState::Closed => {
                streams.reset(id, BYE);
                pull(&mut streams, id, Trigger::Told(Said::StreamClosed));
            }
        }
        assert_eq!(known(streams.state(id)), known(state));
        (streams, id)
    }

    fn pull(streams: &mut Streams, id: StreamId, trigger: Trigger) {
        match trigger {
            Trigger::FinSent => {
                streams.finish(id).unwrap();
                while streams.poll_transmit(&mut Vec::new()).is_some() {}
            }
            Trigger::FinCame => {
                let fin = StreamMessage::Data { stream: id, payload: Bytes::new(), fin: true };
                streams.handle(fin).unwrap();
            }
            Trigger::StopSent => streams.stop(id, BYE),
            Trigger::StopCame => streams.handle(message(Said::StopSending, id).unwrap()).unwrap(),
            Trigger::Told(Said::Error | Said::Reject) => streams.abandon(id, End::new(Code::REFUSED)),
            // The daemon gives up: it resets the stream, and that is its last word.
            Trigger::NoAnswer => {
                streams.handle(message(Said::Reset, id).unwrap()).unwrap();
                streams.handle(message(Said::StreamClosed, id).unwrap()).unwrap();
            }
            Trigger::Told(said) => {
                if let Some(message) = message(said, id) {
                    streams.handle(message).unwrap();
                }
            }
        }
    }

    fn message(said: Said, stream: StreamId) -> Option<StreamMessage> {
        let facts = Facts { cause: Cause::ResetLocal, end: Some(BYE), bytes_in: 0, bytes_out: 0 };
        match said {
            Said::Data => Some(StreamMessage::Data { stream, payload: Bytes::from_static(b"x"), fin: false }),
            Said::Window => Some(StreamMessage::Window { stream, bytes: 1 }),
            Said::StopSending => Some(StreamMessage::StopSending { stream, end: BYE }),
            Said::Reset => Some(StreamMessage::Reset { stream, end: BYE }),
            Said::StreamClosed => Some(StreamMessage::StreamClosed { stream, facts }),
            // Answers and requests: the driver's.
            Said::Opened | Said::Error | Said::Accept | Said::Reject | Said::Cancel => None,
        }
    }
}
