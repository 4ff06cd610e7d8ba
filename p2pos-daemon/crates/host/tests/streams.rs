//! The plugin's end of streams, in all its forms, seen from where the bridge stands.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod common;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use common::{LONG, TestHost, mark, name, peer, processes_with, until};
use p2pos_host::{
    Accepted, Code, End, Ended, GivenUp, Kind, Offer, OpenFailure, OpenedInfo, PathKind, PluginEnd,
    PluginReader, PluginStream, PluginWriter, State,
};
use p2pos_plugin_protocol::{
    client::OpenRequest,
    message::{Attachment, Cause, Registration, StreamId},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

fn stream(end: PluginEnd) -> PluginStream {
    match end {
        PluginEnd::Stream(stream) => stream,
        PluginEnd::Flow(_) => panic!("a flow"),
    }
}

async fn read_all(reader: &mut PluginReader) -> Result<Vec<u8>, End> {
    let mut all = Vec::new();
    let mut chunks = vec![Bytes::new(); 8];
    while let Some(count) = timeout(LONG, reader.read_chunks(&mut chunks)).await.expect("it goes on")? {
        for chunk in &chunks[..count] {
            all.extend_from_slice(chunk);
            reader.consumed(chunk.len());
        }
    }
    Ok(all)
}

async fn write(writer: &mut PluginWriter, bytes: impl Into<Bytes>) -> Result<(), End> {
    timeout(LONG, writer.write_chunks(&mut [bytes.into()])).await.expect("it goes on")
}

fn opened(protocol: &str) -> OpenedInfo {
    OpenedInfo { protocol: name(protocol), path: PathKind::Direct, datagram_max: 1200 }
}

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_stream_command_is_one_process_per_stream_and_told_who_asks() {
    let test = TestHost::start().await;
    test.install_raw("org.sh", "[[serve]]\nprotocol = \"/hi/1\"\nexec = [\"sh\", \"hi.sh\"]\nmax = 2\n")
        .await;
    let script = "echo \"$P2POS_REMOTE_PETNAME $P2POS_PROTOCOL $P2POS_REMOTE_PEER\"\necho heard >&2\ncat\n";
    fs::write(test.plugin_dir("org.sh").join("hi.sh"), script).unwrap();
    assert_eq!(test.host.enable("org.sh").await.unwrap().state, State::Running);
    let accepted = test.host.offer(test.offer("/hi/1")).await.unwrap();
    let (mut reader, mut writer, closer) = stream(accepted.end).split();
    let sending = async {
        write(&mut writer, vec![b'x'; 3 * MIB]).await.unwrap();
        writer.finish().await.unwrap();
    };
    let (answer, ()) = tokio::join!(read_all(&mut reader), sending);
    let answer = answer.unwrap();
    let head = format!("bo /hi/1 {}\n", peer(1));
    assert!(answer.starts_with(head.as_bytes()));
    assert_eq!(answer.len(), head.len() + 3 * MIB);
    closer.close(Ended::Finished);
    test.logged("org.sh", "err   heard").await;

    let one = test.host.offer(test.offer("/hi/1")).await.unwrap();
    let two = test.host.offer(test.offer("/hi/1")).await.unwrap();
    assert_eq!(test.host.offer(test.offer("/hi/1")).await.unwrap_err().code, Code::STREAM_LIMIT);
    drop(one);
    let again = test.host.offer(test.offer("/hi/1")).await;
    drop((two, again));
    let stranger = Offer { is_contact: false, petname: None, ..test.offer("/hi/1") };
    assert_eq!(test.host.offer(stranger).await.unwrap_err().code, Code::PROTOCOL_NOT_SUPPORTED);
}

#[tokio::test]
async fn a_stream_command_that_fails_resets_with_its_exit_code() {
    let test = TestHost::start().await;
    test.install_raw(
        "org.sh",
        "[[serve]]\nprotocol = \"/no/1\"\nexec = [\"sh\", \"-c\", \"echo part; exit 3\"]\n",
    )
    .await;
    test.host.enable("org.sh").await.unwrap();
    let accepted = test.host.offer(test.offer("/no/1")).await.unwrap();
    let (mut reader, _writer, closer) = stream(accepted.end).split();
    assert_eq!(read_all(&mut reader).await, Err(End::app(3)));
    closer.close(Ended::ResetByPlugin(End::app(3)));
    test.logged("org.sh", "/no/1 for bo: exit code 3").await;
}

#[tokio::test]
async fn a_stream_command_that_fails_at_once_is_not_started_as_often_as_a_peer_likes() {
    let test = TestHost::start().await;
    test.install_raw("org.no", "[[serve]]\nprotocol = \"/no/1\"\nexec = [\"sh\", \"-c\", \"exit 1\"]\n")
        .await;
    test.host.enable("org.no").await.unwrap();
    let mut started = 0;
    let refusal = loop {
        match test.host.offer(test.offer("/no/1")).await {
            Ok(accepted) => {
                started += 1;
                assert!(started < 50, "a peer makes us fork at will");
                let (mut reader, _writer, closer) = stream(accepted.end).split();
                assert_eq!(read_all(&mut reader).await, Err(End::app(1)));
                closer.close(Ended::ResetByPlugin(End::app(1)));
            }
            Err(refusal) => break refusal,
        }
    };
    assert!(started >= 5, "people mistype: {started}");
    assert_eq!(refusal.code, Code::NOT_READY);
    assert!(refusal.retry_after.is_some_and(|after| after <= Duration::from_secs(1)), "{refusal:?}");
    test.logged("org.no", "failed too often, not started for 1 s").await;
}

#[tokio::test]
async fn an_exit_code_is_told_although_somebody_holds_the_commands_stderr() {
    let test = TestHost::start().await;
    let script = "echo $$ > pid; until [ -e go ]; do sleep 0.01; done; exit 7";
    let manifest = format!("[[serve]]\nprotocol = \"/held/1\"\nexec = [\"sh\", \"-c\", \"{script}\"]\n");
    test.install_raw("org.held", &manifest).await;
    test.host.enable("org.held").await.unwrap();
    let accepted = test.host.offer(test.offer("/held/1")).await.unwrap();
    let dir = test.plugin_dir("org.held");
    let pid = || fs::read_to_string(dir.join("pid")).unwrap_or_default().trim().to_owned();
    until("it runs", || !pid().is_empty()).await;
    // Its last words do not end with it: whoever waits for them first tells the exit code too late.
    let held = fs::File::options().write(true).open(format!("/proc/{}/fd/2", pid())).unwrap();
    fs::write(dir.join("go"), "").unwrap();
    let (mut reader, _writer, closer) = stream(accepted.end).split();
    assert_eq!(read_all(&mut reader).await, Err(End::app(7)));
    closer.close(Ended::ResetByPlugin(End::app(7)));
    drop(held);
}

#[tokio::test]
async fn a_command_that_ends_after_its_stream_is_minded_to_its_end() {
    watch_for_asking_twice();
    let test = TestHost::start().await;
    let script = "exec >&-; cat >/dev/null; sleep 0.2; exit 9";
    let manifest =
        format!("[[serve]]\nprotocol = \"/late/1\"\nexec = [\"sh\", \"-c\", \"{script}\"]\nmax = 1\n");
    test.install_raw("org.late", &manifest).await;
    test.host.enable("org.late").await.unwrap();
    let accepted = test.host.offer(test.offer("/late/1")).await.unwrap();
    let (_reader, mut writer, closer) = stream(accepted.end).split();
    writer.finish().await.unwrap();
    closer.close(Ended::Finished);
    test.logged("org.late", "/late/1 for bo: exit code 9").await;
    until("nothing is counted any more", || test.host.plugin("org.late").unwrap().streams == 0).await;
    // Its minder was told of the stream's end before the command's. A second look at what has been told is a panic, of
    // which only the hook hears: the runtime swallows it.
    assert!(!ASKED_TWICE.load(Ordering::Relaxed), "the minder asked twice for the stream's end");
}

/// Whether anybody has awaited a oneshot channel that had given its value.
static ASKED_TWICE: AtomicBool = AtomicBool::new(false);

fn watch_for_asking_twice() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let is_it = info.payload_as_str().is_some_and(|text| text.contains("called after complete"));
        ASKED_TWICE.fetch_or(is_it, Ordering::Relaxed);
        usual(info);
    }));
}

#[tokio::test]
async fn stream_commands_end_with_their_plugin_and_with_their_stream() {
    let test = TestHost::start().await;
    let mark = mark();
    let manifest = format!(
        "[[serve]]\nprotocol = \"/s/1\"\nexec = [\"sh\", \"-c\", \"setsid sleep {mark} & sleep {mark}\"]\n"
    );
    test.install_raw("org.sh", &manifest).await;
    test.host.enable("org.sh").await.unwrap();
    let accepted = test.host.offer(test.offer("/s/1")).await.unwrap();
    until("it runs", || processes_with(&mark) >= 2).await;
    let (_reader, _writer, closer) = stream(accepted.end).split();
    closer.close(Ended::ResetByRemote(End::new(Code::PATH_LOST)));
    until("it is gone", || processes_with(&mark) == 0).await;
    let accepted = test.host.offer(test.offer("/s/1")).await.unwrap();
    until("it runs again", || processes_with(&mark) >= 2).await;
    assert_eq!(test.host.stop_plugin("org.sh").await.unwrap().state, State::Stopped);
    assert_eq!(processes_with(&mark), 0);
    let (mut reader, _writer, _closer) = stream(accepted.end).split();
    assert_eq!(read_all(&mut reader).await, Err(End::new(Code::PLUGIN_GONE)));
}

#[tokio::test]
async fn the_peers_first_bytes_reach_the_plugin_before_it_has_answered() {
    let test = TestHost::start().await;
    let client = test.tool(&["/echo/1"]).await;
    let mut listener = client.register("/echo/1").await.unwrap();
    for is_wanted in [true, false] {
        let mut offered = test.host.ask(test.offer("/echo/1")).await.unwrap();
        let writer = offered.end.early_writer().unwrap();
        write(writer, "early ").await.unwrap();
        writer.finish().await.unwrap();
        let incoming = listener.accept().await.unwrap();
        if !is_wanted {
            incoming.reject(false, "not now");
            assert_eq!(offered.answer.wait().await.unwrap_err().code, Code::REFUSED);
            continue;
        }
        let mut stream = incoming.accept_stream().unwrap();
        assert_eq!(stream.read().await.unwrap().unwrap(), "early ");
        assert_eq!(stream.read().await.unwrap(), None);
        offered.answer.wait().await.unwrap();
        let PluginEnd::Stream(end) = offered.end.accepted().await.unwrap() else { panic!("a flow") };
        end.split().2.close(Ended::Finished);
    }
}

#[tokio::test]
async fn a_plugin_that_does_not_answer_cannot_be_sent_more_than_its_first_window() {
    let test = TestHost::start().await;
    let client = test.tool(&["/echo/1"]).await;
    let _listener = client.register("/echo/1").await.unwrap();
    let mut offered = test.host.ask(test.offer("/echo/1")).await.unwrap();
    let writer = offered.end.early_writer().unwrap();
    // The Rust SDK gives a MiB.
    let mut chunks = [Bytes::from(vec![0; 2 * MIB])];
    let writing = timeout(Duration::from_millis(200), writer.write_chunks(&mut chunks));
    assert!(writing.await.is_err(), "two MiB fitted into a window of one");
    assert_eq!(chunks[0].len(), MIB, "what was taken is gone from the front, the rest is kept");
}

#[tokio::test]
async fn an_offer_reaches_the_plugin_and_bytes_flow_both_ways_with_credit() {
    let test = TestHost::start().await;
    let client = test.tool(&["/echo/1"]).await;
    let mut listener = client.register("/echo/1").await.unwrap();
    let plugin = tokio::spawn(async move {
        let incoming = listener.accept().await.unwrap();
        assert_eq!(incoming.info().petname.as_deref(), Some("bo"));
        let mut stream = incoming.accept_stream().unwrap();
        while let Some(bytes) = stream.read().await.unwrap() {
            stream.write(bytes).await.unwrap();
        }
        stream.close_write().unwrap();
        stream.closed().await.unwrap()
    });
    let Accepted { protocol, end } = test.host.offer(test.offer("/echo/1")).await.unwrap();
    assert_eq!(protocol, name("/echo/1"));
    let (mut reader, mut writer, closer) = stream(end).split();
    let sending = async {
        for n in 0..64 {
            write(&mut writer, vec![n; MIB / 8]).await.unwrap();
        }
        writer.finish().await.unwrap();
    };
    let (answer, ()) = tokio::join!(read_all(&mut reader), sending);
    assert_eq!(answer.unwrap().len(), 8 * MIB);
    closer.close(Ended::Finished);
    let closed = timeout(LONG, plugin).await.unwrap().unwrap();
    assert_eq!((closed.cause, closed.bytes_in, closed.bytes_out), (Cause::Finished, 8 << 20, 8 << 20));
}

#[tokio::test]
async fn a_rejecting_a_full_and_a_leaving_plugin_are_told_apart() {
    let test = TestHost::start().await;
    let client = test.tool(&["/a/1"]).await;
    let registration =
        Registration { concurrent_max: Some(1), ..Registration::new(name("/a/1"), Kind::Stream) };
    let mut listener = client.register_with(registration).await.unwrap();
    let plugin = tokio::spawn(async move {
        listener.accept().await.unwrap().reject(false, "not you");
        listener.accept().await.unwrap().reject(true, "not now");
        let stream = listener.accept().await.unwrap().accept_stream().unwrap();
        (listener, stream)
    });
    assert_eq!(test.host.offer(test.offer("/a/1")).await.unwrap_err().code, Code::REFUSED);
    let not_now = test.host.offer(test.offer("/a/1")).await.unwrap_err();
    assert_eq!((not_now.code, not_now.retry_after.is_some()), (Code::NOT_READY, true));
    let accepted = test.host.offer(test.offer("/a/1")).await.unwrap();
    assert_eq!(test.host.offer(test.offer("/a/1")).await.unwrap_err().code, Code::STREAM_LIMIT);
    let (listener, held) = plugin.await.unwrap();
    let (mut reader, mut writer, _closer) = stream(accepted.end).split();
    client.session().close(End::new(Code::SHUTTING_DOWN), "the test ends");
    assert!(read_all(&mut reader).await.is_err());
    timeout(LONG, writer.stopped()).await.unwrap();
    drop((listener, held));
    until("its protocol is gone", || test.host.protocols().is_empty()).await;
}

#[tokio::test]
async fn a_plugin_that_does_not_answer_in_time_is_told_that_its_stream_timed_out() {
    let test = TestHost::start().await;
    let client = test.tool(&["/mux/1", "/raw/1", "/flow/1"]).await;
    let registrations = [
        Registration::new(name("/mux/1"), Kind::Stream),
        Registration { attachment: Attachment::Socket, ..Registration::new(name("/raw/1"), Kind::Stream) },
        Registration::new(name("/flow/1"), Kind::Datagram),
    ];
    tokio::time::pause();
    // The daemon's ids are even. Taken behind the SDK's back, so that nothing is answered.
    for (id, registration) in [2, 4, 6].into_iter().zip(registrations) {
        let kind = registration.kind;
        let is_raw = registration.attachment == Attachment::Socket;
        let offer = Offer { kind, ..test.offer(registration.name.as_ref()) };
        let mut listener = client.register_with(registration).await.unwrap();
        let id = StreamId::new(id).unwrap();
        let plugin = async {
            let incoming = listener.accept().await.unwrap();
            let session = client.session();
            let closed = match (kind, is_raw) {
                (Kind::Datagram, _) => session.adopt_flow(id).unwrap().closed().await,
                (Kind::Stream, true) => session.adopt_detached(id).unwrap().closed().await,
                (Kind::Stream, false) => {
                    let (_send, recv) = session.adopt_stream(id).unwrap();
                    recv.closed().await
                }
            };
            drop(incoming);
            closed.unwrap()
        };
        let (refused, closed) = tokio::join!(test.host.offer(offer), plugin);
        assert_eq!(refused.unwrap_err().code, Code::NOT_READY);
        assert_eq!((closed.cause, closed.end), (Cause::ResetRemote, Some(End::new(Code::TIMEOUT))));
    }
}

#[tokio::test]
async fn a_crashed_plugin_resets_its_streams_and_peers_are_told_to_come_back() {
    let test = TestHost::start().await;
    let code = "plugin = started()\nplugin.register('/c/1')\nwhile True:\n    tag, body, rid = plugin.receive()\n    \
                if tag == INCOMING:\n        plugin.send(ACCEPT, field(1, body[1]), rid)\n        \
                plugin.send(DATA, field(1, body[1]) + field(2, 'half'))\n    if tag == DATA: os.abort()";
    test.install("org.c", "stop_timeout = \"100ms\"\n[permissions]\nnet.accept = [\"/c/1\"]\n[[provides]]\nprotocol = \"/c/1\"\n", code).await;
    test.host.enable("org.c").await.unwrap();
    until("it serves", || !test.host.protocols().is_empty()).await;
    let accepted = test.host.offer(test.offer("/c/1")).await.unwrap();
    let (mut reader, mut writer, _closer) = stream(accepted.end).split();
    let mut chunks = [Bytes::new()];
    reader.read_chunks(&mut chunks).await.unwrap();
    assert_eq!(&chunks[0][..], b"half");
    write(&mut writer, "die").await.unwrap();
    assert_eq!(read_all(&mut reader).await, Err(End::new(Code::PLUGIN_GONE)));
    let refusal = test.host.offer(test.offer("/c/1")).await.unwrap_err();
    assert_eq!((refusal.code, refusal.retry_after.is_some()), (Code::NOT_READY, true));
    until("it is back", || {
        test.host.plugin("org.c").unwrap().restarts == 1 && !test.host.protocols().is_empty()
    })
    .await;
    test.host.offer(test.offer("/c/1")).await.unwrap();
    test.host.disable("org.c").await.unwrap();
    let refusal = test.host.offer(test.offer("/c/1")).await.unwrap_err();
    assert_eq!(refusal.code, Code::PROTOCOL_NOT_SUPPORTED);
}

#[tokio::test]
async fn an_open_reaches_the_network_and_its_answer_the_plugin() {
    let mut test = TestHost::start().await;
    let client = test.dev("org.o", "[permissions]\nnet.open = [\"/x/1\"]\n").await;
    let asked = client.clone();
    let plugin = tokio::spawn(async move {
        let mut stream = asked.open(peer(1), "/x/1").await.unwrap();
        stream.write("question").await.unwrap();
        stream.close_write().unwrap();
        let mut answer = BytesMut::new();
        while let Some(bytes) = stream.read().await.unwrap() {
            answer.extend_from_slice(&bytes);
        }
        (answer, stream.closed().await.unwrap())
    });
    let (request, answer) = timeout(LONG, test.opens.recv()).await.unwrap().unwrap();
    assert_eq!(
        (request.plugin.as_str(), request.peer, &request.protocols[..]),
        ("org.o", peer(1), &[name("/x/1")][..])
    );
    let (mut reader, mut writer, closer) = stream(answer.opened(opened("/x/1")).await.unwrap()).split();
    assert_eq!(read_all(&mut reader).await.unwrap(), b"question");
    write(&mut writer, "answer").await.unwrap();
    writer.finish().await.unwrap();
    closer.close(Ended::Finished);
    let (bytes, closed) = timeout(LONG, plugin).await.unwrap().unwrap();
    assert_eq!((&bytes[..], closed.cause), (&b"answer"[..], Cause::Finished));
    let denied = client.open(peer(1), "/y/1").await.unwrap_err();
    assert_eq!(denied.code(), Some(Code::PERMISSION_DENIED));
    let denied = client.open(peer(2), "/x/1").await.unwrap_err();
    assert_eq!(denied.code(), Some(Code::PERMISSION_DENIED), "no contact");
}

#[tokio::test]
async fn an_open_that_fails_is_told_why_and_one_that_is_given_up_is_noticed() {
    let mut test = TestHost::start().await;
    let client = test.tool(&[]).await;
    let failing = tokio::spawn({
        let client = client.clone();
        async move { client.open(peer(1), "/x/1").await }
    });
    let (_, answer) = test.opens.recv().await.unwrap();
    answer.failed(OpenFailure {
        code: Code::UNREACHABLE,
        message: "3 ways were tried".into(),
        details: vec!["lan: no answer".into()],
        retry_after: Some(Duration::from_secs(4)),
    });
    let error = failing.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(Code::UNREACHABLE));
    assert!(error.to_string().contains("3 ways were tried"), "{error}");

    let given_up = tokio::spawn({
        let client = client.clone();
        async move { client.open(peer(1), "/x/1").await }
    });
    let (_, answer) = test.opens.recv().await.unwrap();
    given_up.abort();
    let why = timeout(LONG, answer.given_up()).await.expect("the plugin's Cancel is noticed");
    assert_eq!(why, GivenUp::Cancelled);
    drop(answer);

    let lost = tokio::spawn({
        let client = client.clone();
        async move { client.open(peer(1), "/x/1").await }
    });
    let (_, answer) = test.opens.recv().await.unwrap();
    drop(answer);
    assert_eq!(lost.await.unwrap().unwrap_err().code(), Some(Code::INTERNAL), "never left without an answer");
}

#[tokio::test]
async fn the_right_name_in_the_wrong_kind_is_told_as_such() {
    let mut test = TestHost::start().await;
    let client = test.tool(&[]).await;
    for (offered, wanted) in [
        ("/x/1", "the peer serves /x/1 for datagrams, and was asked for a stream"),
        ("/y/1", "no plugin serves it"),
    ] {
        let failing = tokio::spawn({
            let client = client.clone();
            async move { client.open(peer(1), "/x/1").await }
        });
        let (_, answer) = test.opens.recv().await.unwrap();
        answer.failed(OpenFailure {
            code: Code::PROTOCOL_NOT_SUPPORTED,
            message: "no plugin serves it".into(),
            details: vec![offered.to_owned()],
            retry_after: None,
        });
        let error = failing.await.unwrap().unwrap_err();
        assert_eq!(error.code(), Some(Code::PROTOCOL_NOT_SUPPORTED));
        assert!(error.to_string().contains(wanted), "{error}");
    }
    // The peer's side of it: what it serves in another kind stands in the list it offers.
    let server = test.dev("org.d", "[permissions]\nnet.accept = [\"/x/1\"]\n").await;
    let _served = server.register_with(Registration::new(name("/x/1"), Kind::Datagram)).await.unwrap();
    let refusal = test.host.offer(test.offer("/x/1")).await.unwrap_err();
    assert_eq!((refusal.code, refusal.offered), (Code::PROTOCOL_NOT_SUPPORTED, vec![name("/x/1")]));
}

#[tokio::test]
async fn a_detached_stream_is_a_plain_socket_and_its_end_is_told_on_the_session() {
    let mut test = TestHost::start().await;
    let client = test.tool(&["/raw/1"]).await;
    let registration =
        Registration { attachment: Attachment::Socket, ..Registration::new(name("/raw/1"), Kind::Stream) };
    let mut listener = client.register_with(registration).await.unwrap();
    let plugin = tokio::spawn(async move {
        let mut raw = listener.accept().await.unwrap().accept_raw().await.unwrap();
        let mut bytes = Vec::new();
        raw.read_to_end(&mut bytes).await.unwrap();
        raw.write_all(&bytes).await.unwrap();
        raw.shutdown().await.unwrap();
        raw.closed().await.unwrap()
    });
    let accepted = test.host.offer(test.offer("/raw/1")).await.unwrap();
    let (mut reader, mut writer, closer) = stream(accepted.end).split();
    let mut chunks = vec![Bytes::from(vec![7; MIB]), Bytes::from_static(b"end")];
    timeout(LONG, writer.write_chunks(&mut chunks)).await.unwrap().unwrap();
    writer.finish().await.unwrap();
    assert_eq!(read_all(&mut reader).await.unwrap().len(), MIB + 3);
    closer.close(Ended::Finished);
    let closed = timeout(LONG, plugin).await.unwrap().unwrap();
    let bytes = (MIB + 3) as u64;
    assert_eq!((closed.cause, closed.bytes_in, closed.bytes_out), (Cause::Finished, bytes, bytes));

    let opening = tokio::spawn({
        let client = client.clone();
        async move { client.open_raw(OpenRequest::new(peer(1), name("/out/1"))).await.unwrap() }
    });
    let (_, answer) = test.opens.recv().await.unwrap();
    let (mut reader, writer, closer) = stream(answer.opened(opened("/out/1")).await.unwrap()).split();
    let mut raw = timeout(LONG, opening).await.unwrap().unwrap();
    raw.write_all(b"half a file").await.unwrap();
    let mut chunks = [Bytes::new()];
    reader.read_chunks(&mut chunks).await.unwrap();
    drop((writer, reader));
    closer.close(Ended::ResetByRemote(End::app(5)));
    let closed = timeout(LONG, raw.closed()).await.unwrap().unwrap();
    assert_eq!((closed.cause, closed.end, closed.bytes_out), (Cause::ResetRemote, Some(End::app(5)), 11));
}

#[tokio::test]
async fn a_killed_plugin_does_not_make_half_a_file_look_whole() {
    let test = TestHost::start().await;
    let client = test.tool(&["/raw/1"]).await;
    let registration =
        Registration { attachment: Attachment::Socket, ..Registration::new(name("/raw/1"), Kind::Stream) };
    let mut listener = client.register_with(registration).await.unwrap();
    let plugin = tokio::spawn(async move {
        let mut raw = listener.accept().await.unwrap().accept_raw().await.unwrap();
        raw.write_all(b"half").await.unwrap();
        (raw, listener)
    });
    let accepted = test.host.offer(test.offer("/raw/1")).await.unwrap();
    let (mut reader, _writer, _closer) = stream(accepted.end).split();
    let (raw, listener) = plugin.await.unwrap();
    // The kernel closes a dead plugin's sockets in any order; the data socket first is the dangerous one.
    drop(raw);
    client.session().close(End::new(Code::SHUTTING_DOWN), "killed");
    assert!(read_all(&mut reader).await.is_err());
    drop(listener);
}

#[tokio::test]
async fn datagrams_pass_both_ways() {
    let mut test = TestHost::start().await;
    let client = test.tool(&["/d/1"]).await;
    let mut listener = client.register_with(Registration::new(name("/d/1"), Kind::Datagram)).await.unwrap();
    let plugin = tokio::spawn(async move {
        let flow = listener.accept().await.unwrap().accept_datagrams().unwrap();
        let first = flow.recv().await.unwrap();
        flow.send(first).unwrap();
        (flow.recv().await, listener)
    });
    let offer = Offer { kind: Kind::Datagram, datagram_max: 1200, ..test.offer("/d/1") };
    let PluginEnd::Flow(flow) = test.host.offer(offer).await.unwrap().end else { panic!("a stream") };
    let (reader, writer, closer) = flow.split();
    writer.send(Bytes::from_static(b"ping")).unwrap();
    assert_eq!(timeout(LONG, reader.recv()).await.unwrap().unwrap(), "ping");
    closer.close(Ended::ResetByRemote(End::new(Code::PATH_LOST)));
    let (ended, _listener) = timeout(LONG, plugin).await.unwrap().unwrap();
    assert!(ended.is_err());
    let wrong_kind = test.host.offer(test.offer("/d/1")).await.unwrap_err();
    assert_eq!(wrong_kind.code, Code::PROTOCOL_NOT_SUPPORTED);

    let opening = tokio::spawn({
        let client = client.clone();
        let request = OpenRequest::new(peer(1), name("/d/1"));
        async move { client.open_datagrams(request).await.unwrap() }
    });
    let (request, answer) = timeout(LONG, test.opens.recv()).await.unwrap().unwrap();
    assert_eq!(request.kind, Kind::Datagram);
    let PluginEnd::Flow(flow) = answer.opened(opened("/d/1")).await.unwrap() else { panic!("a stream") };
    let (reader, _writer, _closer) = flow.split();
    let datagrams = timeout(LONG, opening).await.unwrap().unwrap();
    assert_eq!(datagrams.bytes_max(), 1200);
    datagrams.send("out").unwrap();
    assert_eq!(timeout(LONG, reader.recv()).await.unwrap().unwrap(), "out");
}
