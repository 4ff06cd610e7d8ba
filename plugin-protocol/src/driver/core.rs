//! What a session's task and its handles share, behind one lock that is held for nanoseconds and never across a wait.
//!
//! The handles do their work right here: a `write` puts bytes into the stream machine, a `read` takes them out. The task
//! moves bytes between machine and socket. Nobody sends anything to anybody by a channel.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard},
    task::Waker,
};

use bytes::BytesMut;
use tokio::sync::watch;

use super::{Inbound, RequestError, SessionStats, Settings};
use crate::{
    code::{Class, Code, End},
    limits,
    message::{
        Accept, Attachment, Body, DecodeError, ErrorReply, Frame, GoAway, Kind, Message, Opened, Reject, Rid,
        Role, StreamId, Violation,
    },
    streams::{Admission, Event, Sort, Streams},
};

/// Rough size of a frame that the stream machine wants to send and that is no Data, in bytes.
const CONTROL_FRAME_BYTES: usize = 40;

#[derive(Debug)]
pub(super) struct Shared {
    core: Mutex<Core>,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Self {
        Self { core: Mutex::new(Core::new(settings)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("nobody panics while holding the session")
    }
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) streams: Streams,
    /// Encoded frames that go before all Data.
    pub(super) control: BytesMut,
    wakers: BTreeMap<StreamId, StreamWakers>,
    /// Our requests that are not answered, or whose answer nobody has fetched.
    asked: BTreeMap<Rid, Asked>,
    last_rid: u32,
    /// The other side's requests that we have not answered, with the stream that each opens.
    owed: BTreeMap<Rid, Option<StreamId>>,
    inbox: VecDeque<Inbound>,
    inbox_logs: usize,
    inbox_waker: Option<Waker>,
    /// Set once; from then on the session only winds up.
    end: Option<End>,
    /// What we said why, if it was our side that ended it.
    pub(super) last_word: String,
    /// Tells the end to whoever waits for it. A channel, because such waits come and go with every request, and each must
    /// take its waker along when it goes.
    pub(super) ended: watch::Sender<Option<End>>,
    task: Option<Waker>,
    /// The task has been woken and has not looked yet.
    is_task_due: bool,
    pub(super) stats: SessionStats,
}

/// Who waits for something about one stream. Wakers stay after waking, so that waiting again costs no clone.
#[derive(Debug, Default)]
pub(super) struct StreamWakers {
    handles: u32,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    watchers: Vec<Waker>,
}

#[derive(Debug)]
enum Asked {
    Waiting {
        waker: Option<Waker>,
        stream: Option<StreamId>,
    },
    Answered(Result<Body, ErrorReply>),
    /// Nobody waits any more, but the answer still tells what became of the stream.
    GivenUp {
        stream: StreamId,
    },
}

impl Core {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            streams: Streams::new(settings.streams()),
            control: BytesMut::new(),
            wakers: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_rid: 0,
            owed: BTreeMap::new(),
            inbox: VecDeque::new(),
            inbox_logs: 0,
            inbox_waker: None,
            end: None,
            last_word: String::new(),
            ended: watch::Sender::new(None),
            task: None,
            is_task_due: false,
            stats: SessionStats::default(),
        }
    }

    // ---- The task's side ----

    /// The task is about to look at everything; whoever adds something from now on has to wake it again.
    pub(super) fn note_task(&mut self, waker: &Waker) {
        self.is_task_due = false;
        keep(&mut self.task, waker);
    }

    /// Wakes the task if there is something for it to send.
    pub(super) fn wake_task(&mut self) {
        if !self.is_task_due
            && let Some(task) = &self.task
        {
            self.is_task_due = true;
            task.wake_by_ref();
        }
    }

    /// Wakes whoever waits for what has happened to streams.
    pub(super) fn wake_by_events(&mut self) {
        while let Some(event) = self.streams.poll_event() {
            let (Event::Readable(id) | Event::Writable(id) | Event::Changed(id)) = event;
            let Some(wakers) = self.wakers.get_mut(&id) else {
                continue;
            };
            match event {
                Event::Readable(_) => wakers.reader.iter().for_each(Waker::wake_by_ref),
                Event::Writable(_) => wakers.writer.iter().for_each(Waker::wake_by_ref),
                Event::Changed(_) => wakers.wake_all(),
            }
        }
    }

    pub(super) const fn end(&self) -> Option<End> {
        self.end
    }

    /// What the end is called when the other side is simply gone.
    pub(super) const fn end_of_loss(&self) -> End {
        End::new(match self.settings.role {
            Role::Plugin => Code::SHUTTING_DOWN,
            Role::Daemon => Code::PLUGIN_GONE,
        })
    }

    /// Ends the session for everybody who holds a handle. What is queued may still be sent, see [`Core::wind_up`].
    pub(super) fn end_with(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        self.streams.leave();
        for asked in self.asked.values_mut() {
            if let Asked::Waiting { waker: Some(waker), .. } = asked {
                waker.wake_by_ref();
            }
        }
        self.wakers.values_mut().for_each(StreamWakers::wake_all);
        self.inbox_waker.iter().for_each(Waker::wake_by_ref);
        self.ended.send_replace(self.end);
        self.wake_task();
    }

    /// Ends the session with a last word to the other side: a GoAway if all is well, an Error otherwise.
    pub(super) fn close(&mut self, end: End, reason: &str) {
        if self.end.is_some() {
            return;
        }
        if end.code == Code::SLOW_CONSUMER {
            self.control.clear();
        }
        reason.clone_into(&mut self.last_word);
        let body = match end.code {
            Code::SHUTTING_DOWN => Body::GoAway(GoAway { code: end.code, reason: reason.to_owned() }),
            code => Body::Error(ErrorReply::new(code, reason)),
        };
        Frame { rid: None, message: Message::Body(body) }.encode(&mut self.control);
        self.end_with(end);
    }

    /// Nothing more will be sent: every stream is over.
    pub(super) fn wind_up(&mut self, end: End) {
        self.end_with(end);
        self.streams.end_session(end);
        self.wake_by_events();
    }

    /// The other side broke a rule.
    pub(super) fn fail(&mut self, violation: Violation) {
        self.close(End::new(violation.code), violation.what);
        self.streams.end_session(End::new(violation.code));
        self.wake_by_events();
    }

    /// Bytes that wait for the socket and are no Data.
    pub(super) fn control_bytes_waiting(&self) -> usize {
        self.control.len() + self.streams.control_frames() * CONTROL_FRAME_BYTES
    }

    /// Closes with 106 if the other side asks and asks and never reads the answers.
    pub(super) fn check_control_queue(&mut self) {
        if self.control_bytes_waiting() > limits::CONTROL_QUEUE_BYTES_MAX {
            self.fail(Violation {
                code: Code::SLOW_CONSUMER,
                what: "answers pile up and nobody reads them [S-FRAME-6]",
            });
        }
    }

    // ---- What the other side says ----

    /// Takes one frame that is no plain Data.
    pub(super) fn handle_frame(&mut self, frame: Result<Frame, DecodeError>) -> Result<(), Violation> {
        let Frame { rid, message } = match frame {
            Ok(frame) => frame,
            // Bad proofs and tickets have a code of their own, but here they are out of place whatever they say.
            Err(DecodeError::Violation { violation: Violation { code: Code::AUTH, what }, .. }) => {
                return Err(Violation::protocol(what));
            }
            Err(DecodeError::Violation { violation, .. }) => return Err(violation),
            Err(DecodeError::BadRequest { .. }) if self.settings.role == Role::Plugin => {
                return Err(Violation::protocol("a message that only a plugin may send [S-MSG-5]"));
            }
            Err(DecodeError::BadRequest { rid, opens, reply }) => {
                if let Some(id) = opens {
                    self.streams.handle_bad_open(id)?;
                }
                self.say(rid, Body::Error(*reply));
                return Ok(());
            }
        };
        if !message.may_come_from(self.settings.role.other()) {
            return Err(Violation::protocol("a message that the sender may not send here [S-MSG-5]"));
        }
        match message {
            Message::Stream(message) => self.streams.handle(message),
            Message::Ping(nonce) => {
                self.put(Frame { rid, message: Message::Pong(nonce) });
                Ok(())
            }
            Message::Pong(_) => Ok(()),
            Message::Body(body) if body.is_answer() => self.handle_answer(rid, body),
            Message::Body(body) => self.handle_request(rid, body),
            Message::Handshake(_) => {
                Err(Violation::protocol("a message of the handshake in an open session [S-MSG-5]"))
            }
            Message::Unknown => {
                self.stats.unknown_frames += 1;
                if rid.is_some() {
                    self.say(
                        rid,
                        Body::Error(ErrorReply::new(
                            Code::UNKNOWN_METHOD,
                            "this version does not know it [S-MSG-6]",
                        )),
                    );
                }
                Ok(())
            }
        }
    }

    fn handle_answer(&mut self, rid: Option<Rid>, body: Body) -> Result<(), Violation> {
        if let Body::Opened(Opened { stream, .. })
        | Body::Accept(Accept { stream })
        | Body::Reject(Reject { stream, .. }) = &body
        {
            self.streams.check_opened(*stream)?;
        }
        let Some(rid) = rid else {
            self.handle_complaint(body);
            return Ok(());
        };
        let stream = match self.asked.get(&rid) {
            Some(Asked::Waiting { stream, .. }) => *stream,
            Some(Asked::GivenUp { stream }) => Some(*stream),
            Some(Asked::Answered(_)) | None => return Ok(()),
        };
        let answer = good_or_bad(body);
        if let (Some(id), Err(error)) = (stream, &answer) {
            self.streams.abandon(id, End::new(error.code));
        }
        match self.asked.remove(&rid) {
            Some(Asked::Waiting { waker, .. }) => {
                self.asked.insert(rid, Asked::Answered(answer));
                waker.iter().for_each(Waker::wake_by_ref);
            }
            Some(Asked::Answered(_) | Asked::GivenUp { .. }) | None => {}
        }
        Ok(())
    }

    /// An Error without `rid`: about a stream or about us; the session's own codes end it.
    fn handle_complaint(&mut self, body: Body) {
        let Body::Error(error) = &body else {
            return;
        };
        if error.stream.is_none() && error.code.class() == Class::Session {
            self.wind_up(End::new(error.code));
        } else {
            self.deliver(Inbound { rid: None, body });
        }
    }

    fn handle_request(&mut self, rid: Option<Rid>, body: Body) -> Result<(), Violation> {
        if rid.is_some_and(|rid| self.owed.contains_key(&rid)) {
            return Err(Violation::protocol("a rid whose request is not answered yet [S-REQ-1]"));
        }
        let opens = opened_by(&body);
        if rid.is_some() && self.owed.len() >= self.settings.requests_max as usize {
            if let Some((id, _)) = opens {
                self.streams.handle_bad_open(id)?;
            }
            self.refuse(
                rid,
                opens,
                ErrorReply::new(Code::LIMIT, "too many requests are waiting for their answer [S-REQ-5]"),
            );
            return Ok(());
        }
        if let Some((id, sort)) = opens
            && self.streams.handle_open(id, sort)? == Admission::Full
        {
            self.refuse(rid, opens, ErrorReply::new(Code::STREAM_LIMIT, "too many streams are open"));
            return Ok(());
        }
        if let Body::Cancel(target) = body {
            if rid.is_some() {
                self.say(rid, Body::Done);
            }
            if self.owed.contains_key(&target) {
                self.deliver(Inbound { rid: None, body });
            }
            return Ok(());
        }
        match (rid, opens) {
            (Some(rid), _) => {
                self.owed.insert(rid, opens.map(|(id, _)| id));
            }
            // Nobody can answer, so nobody would ever take it [S-REQ-2].
            (None, Some((id, _))) => self.streams.abandon(id, End::new(Code::BAD_REQUEST)),
            (None, None) => {}
        }
        self.deliver(Inbound { rid, body });
        Ok(())
    }

    fn refuse(&mut self, rid: Option<Rid>, opens: Option<(StreamId, Sort)>, mut error: ErrorReply) {
        error.stream = opens.map(|(id, _)| id);
        self.say(rid, Body::Error(error));
    }

    /// Puts something into the inbox. What does not fit is refused, or dropped and counted; the reader never waits.
    fn deliver(&mut self, inbound: Inbound) {
        let is_log = matches!(inbound.body, Body::Log(_));
        let is_full = self.inbox.len() >= limits::INBOX_FRAMES_MAX;
        if is_full || (is_log && self.inbox_logs >= limits::INBOX_LOGS_MAX) {
            match inbound.rid {
                Some(rid) => {
                    self.reply(
                        rid,
                        Body::Error(ErrorReply::new(Code::LIMIT, "the daemon is behind with its work")),
                    );
                }
                None => self.stats.notifications_dropped += 1,
            }
            return;
        }
        self.inbox_logs += usize::from(is_log);
        self.inbox.push_back(inbound);
        self.inbox_waker.iter().for_each(Waker::wake_by_ref);
    }

    // ---- What we say ----

    /// Queues a frame before all Data. One that the other side would not take becomes an Error, or nothing.
    fn put(&mut self, frame: Frame) {
        let start = self.control.len();
        let rid = frame.rid;
        frame.encode(&mut self.control);
        let bytes = self.control.len() - start - limits::PREFIX_BYTES;
        if bytes > self.settings.peer_frame_bytes_max as usize {
            self.control.truncate(start);
            let max = self.settings.peer_frame_bytes_max;
            tracing::warn!(bytes, max, "a frame is larger than the other side takes");
            if rid.is_some() {
                let what = format!("the answer has {bytes} bytes, the limit is {max} bytes");
                let body = Body::Error(ErrorReply::new(Code::TOO_BIG, what));
                Frame { rid, message: Message::Body(body) }.encode(&mut self.control);
            }
        }
    }

    fn say(&mut self, rid: Option<Rid>, body: Body) {
        self.put(Frame { rid, message: Message::Body(body) });
    }

    pub(super) fn notify(&mut self, body: Body) {
        if self.end.is_none() {
            self.say(None, body);
            self.check_control_queue();
            self.wake_task();
        }
    }

    /// Answers a request of the other side's. A refused stream is forgotten by both.
    pub(super) fn reply(&mut self, rid: Rid, body: Body) {
        let Some(stream) = self.owed.remove(&rid) else {
            return;
        };
        if self.end.is_some() {
            return;
        }
        if let Some(id) = stream
            && let Body::Error(ErrorReply { code, .. }) | Body::Reject(Reject { code, .. }) = &body
        {
            self.streams.abandon(id, End::new(*code));
            self.wake_by_events();
        }
        self.say(Some(rid), body);
        self.check_control_queue();
        self.wake_task();
    }

    /// Asks. The frame is queued before this returns.
    pub(super) fn ask(&mut self, body: Body, stream: Option<StreamId>) -> Result<Rid, RequestError> {
        if let Some(end) = self.end {
            return Err(RequestError::Ended(end));
        }
        if self.asked.len() >= self.settings.requests_max as usize {
            let what = format!("{} requests are waiting for their answer", self.settings.requests_max);
            return Err(RequestError::Refused(Box::new(ErrorReply::new(Code::LIMIT, what))));
        }
        let rid = self.next_rid();
        self.say(Some(rid), body);
        self.asked.insert(rid, Asked::Waiting { waker: None, stream });
        self.check_control_queue();
        self.wake_task();
        Ok(rid)
    }

    fn next_rid(&mut self) -> Rid {
        loop {
            self.last_rid = self.last_rid.wrapping_add(1);
            if let Some(rid) = Rid::new(self.last_rid)
                && !self.asked.contains_key(&rid)
            {
                return rid;
            }
        }
    }

    /// Fetches the answer, or notes who waits for it.
    pub(super) fn poll_answer(&mut self, rid: Rid, waker: &Waker) -> Option<Result<Body, RequestError>> {
        match self.asked.get_mut(&rid) {
            Some(Asked::Waiting { waker: slot, .. }) => match self.end {
                None => {
                    keep(slot, waker);
                    None
                }
                Some(end) => {
                    self.asked.remove(&rid);
                    Some(Err(RequestError::Ended(end)))
                }
            },
            Some(Asked::Answered(_)) => match self.asked.remove(&rid) {
                Some(Asked::Answered(answer)) => {
                    Some(answer.map_err(|error| RequestError::Refused(Box::new(error))))
                }
                Some(Asked::Waiting { .. } | Asked::GivenUp { .. }) | None => None,
            },
            Some(Asked::GivenUp { .. }) | None => {
                let end = self.end.unwrap_or(End::new(Code::CANCELLED));
                Some(Err(RequestError::Ended(end)))
            }
        }
    }

    /// Nobody waits for this answer any more.
    pub(super) fn give_up(&mut self, rid: Rid) {
        let Some(Asked::Waiting { stream, .. }) = self.asked.remove(&rid) else {
            return;
        };
        if self.settings.role == Role::Plugin && self.end.is_none() {
            if let Some(stream) = stream {
                self.asked.insert(rid, Asked::GivenUp { stream });
            }
            self.notify(Body::Cancel(rid));
        }
    }

    // ---- The handles' side ----

    pub(super) fn poll_inbox(&mut self, waker: &Waker) -> Option<Option<Inbound>> {
        if let Some(inbound) = self.inbox.pop_front() {
            self.inbox_logs -= usize::from(matches!(inbound.body, Body::Log(_)));
            return Some(Some(inbound));
        }
        if self.end.is_some() {
            return Some(None);
        }
        keep(&mut self.inbox_waker, waker);
        None
    }

    pub(super) fn hold(&mut self, id: StreamId, handles: u32) {
        self.wakers.entry(id).or_default().handles += handles;
    }

    /// A handle is gone; when it was the last one, so is all that was kept for them.
    pub(super) fn release(&mut self, id: StreamId) {
        self.streams.release(id);
        if let Some(wakers) = self.wakers.get_mut(&id) {
            wakers.handles -= 1;
            if wakers.handles == 0 {
                self.wakers.remove(&id);
            }
        }
    }

    pub(super) fn wakers(&mut self, id: StreamId) -> &mut StreamWakers {
        self.wakers.entry(id).or_default()
    }

    /// After a handle has done something to a stream: wakes whom it concerns.
    pub(super) fn after_stream_call(&mut self) {
        self.wake_by_events();
        if self.streams.has_transmit() {
            self.wake_task();
        }
    }
}

impl StreamWakers {
    pub(super) fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|known| known.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }

    fn wake_all(&mut self) {
        self.reader.iter().for_each(Waker::wake_by_ref);
        self.writer.iter().for_each(Waker::wake_by_ref);
        self.watchers.drain(..).for_each(Waker::wake);
    }
}

/// Keeps a waker, without cloning it if it is already there.
pub(super) fn keep(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) if known.will_wake(waker) => {}
        Some(_) | None => *slot = Some(waker.clone()),
    }
}

fn good_or_bad(answer: Body) -> Result<Body, ErrorReply> {
    if let Body::Error(error) = answer {
        return Err(error);
    }
    if let Body::Reject(reject) = answer {
        return Err(ErrorReply::new(reject.code, reject.reason));
    }
    Ok(answer)
}

/// The stream that a request opens.
fn opened_by(body: &Body) -> Option<(StreamId, Sort)> {
    let sort = |kind, is_detached| match (kind, is_detached) {
        (Kind::Datagram, _) => Sort::Flow,
        (Kind::Stream, true) => Sort::Detached,
        (Kind::Stream, false) => Sort::Stream,
    };
    if let Body::Open(open) = body {
        return Some((open.stream, sort(open.kind, open.attachment == Attachment::Socket)));
    }
    if let Body::Incoming(incoming) = body {
        return Some((incoming.stream, sort(incoming.kind, incoming.ticket.is_some())));
    }
    None
}
