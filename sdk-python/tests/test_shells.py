"""Both shells against the fake daemon, over real sockets. Each behaviour is checked for asyncio and for threads."""

from __future__ import annotations

import asyncio
import pathlib
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from vectors import PROTOCOL

import p2pos
from p2pos import aio, sync
from p2pos import messages as m
from p2pos.codec import encode_frame
from p2pos.codes import Code
from p2pos.launch import Launch
from p2pos.testing import FakeDaemon, Network, RemoteStream, fake_peer_id

Spawn = Callable[[Callable[[], Any]], threading.Thread]


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def echo(stream: RemoteStream) -> None:
    for chunk in stream:
        stream.write(chunk)
    stream.close_write()


def write_all(stream: RemoteStream, data: bytes) -> None:
    stream.write(data)
    stream.close_write()


def serve_echo(plugin: sync.Plugin) -> None:
    def one(stream: Any) -> None:
        with stream:
            for chunk in stream:
                stream.write(chunk)

    for stream in plugin.accept("/echo/1"):
        in_thread(lambda stream=stream: one(stream))  # type: ignore[misc]


async def aserve_echo(plugin: aio.Plugin) -> None:
    async def one(stream: Any) -> None:
        async with stream:
            async for chunk in stream:
                await stream.write(chunk)

    tasks = [asyncio.create_task(one(stream)) async for stream in plugin.accept("/echo/1")]
    await asyncio.gather(*tasks)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("detached", [False, True], ids=["mux", "detached"])
def test_sync_serves_streams_and_ends_when_asked(tcp: bool, detached: bool) -> None:
    with FakeDaemon(tcp=tcp) as daemon, sync.connect(daemon.launch()) as plugin:
        plugin.register("/echo/1", detached=detached)
        server = in_thread(lambda: serve_echo(plugin))
        stream = daemon.peer("bo").open("/echo/1")
        data = bytes(range(256)) * 4000
        writer = in_thread(lambda: write_all(stream, data))
        assert stream.read_all() == data
        writer.join()
        closed = stream.wait_end()
        assert (closed.cause, closed.bytes_in, closed.bytes_out) == (m.Cause.FINISHED, len(data), len(data))
        daemon.ask_to_end()
        server.join(5)
        assert not server.is_alive()


@pytest.mark.parametrize("detached", [False, True], ids=["mux", "detached"])
def test_aio_serves_streams_and_ends_when_asked(detached: bool) -> None:
    async def work() -> None:
        with FakeDaemon() as daemon:
            async with aio.connect(daemon.launch()) as plugin:
                await plugin.register("/echo/1", detached=detached)
                server = asyncio.create_task(aserve_echo(plugin))

                def far() -> None:
                    stream = daemon.peer("bo").open("/echo/1")
                    data = bytes(range(256)) * 4000
                    writer = in_thread(lambda: write_all(stream, data))
                    assert stream.read_all() == data
                    writer.join()
                    assert stream.wait_end().cause == m.Cause.FINISHED

                await asyncio.to_thread(far)
                await asyncio.to_thread(daemon.ask_to_end)
                await server

    run(work())


def test_sync_opens_streams() -> None:
    with FakeDaemon() as daemon, sync.connect(daemon.launch()) as plugin:
        bo = daemon.peer("bo")
        bo.serve("/echo/1", echo)
        with plugin.open(bo.peer_id, ["/echo/2", "/echo/1"]) as stream:
            assert stream.info.protocol == "/echo/1"
            assert stream.info.path == "loopback"
            stream.write(bytearray(b"hello"))
            assert stream.read_exactly(5, timeout=5) == b"hello"
            stream.close_write()
            assert stream.read() == b""
            assert stream.wait_closed(5) == p2pos.Closed(True, 0, 0, 5, 5)
        with plugin.open_detached(bo.peer_id, "/echo/1") as detached:
            detached.write(b"hello")
            assert detached.read(5) == b"hello"
            buffer = bytearray(8)
            detached.write(b"again")
            assert (detached.read_into(buffer), bytes(buffer[:5])) == (5, b"again")
            detached.close_write()
            assert (detached.read(), detached.read_into(buffer)) == (b"", 0)
            assert detached.wait_closed(5).is_finished


def test_aio_opens_streams() -> None:
    async def work() -> None:
        with FakeDaemon() as daemon:
            async with aio.connect(daemon.launch()) as plugin:
                bo = daemon.peer("bo")
                bo.serve("/echo/1", echo)
                async with plugin.open(bo.peer_id, "/echo/1") as stream:
                    await stream.write(b"hello")
                    assert await stream.read_exactly(5) == b"hello"
                    stream.close_write()
                    assert await stream.read() == b""
                    assert (await stream.wait_closed()).is_finished
                detached = await plugin.open_detached(bo.peer_id, "/echo/1")
                async with detached:
                    await detached.write(b"hello")
                    assert await detached.read(5) == b"hello"
                    buffer = bytearray(8)
                    await detached.write(b"again")
                    assert (await detached.read_into(buffer), bytes(buffer[:5])) == (5, b"again")
                    detached.close_write()
                    assert (await detached.read(), await detached.read_into(buffer)) == (b"", 0)
                    assert (await detached.wait_closed()).is_finished

    run(work())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.OFFLINE, p2pos.PeerUnreachable),
        (Code.REFUSED, p2pos.PeerRefused),
        (Code.NOT_READY, p2pos.PeerNotReady),
        (Code.IDENTITY_MISMATCH, p2pos.PeerError),
        (Code.PERMISSION_DENIED, p2pos.PermissionDenied),
        (Code.TIMEOUT, p2pos.RequestTimeout),
        (Code.INTERNAL, p2pos.RequestFailed),
    ],
)
def test_every_refusal_is_its_own_exception(code: Code, kind: type[p2pos.P2posError]) -> None:
    with FakeDaemon() as daemon, sync.connect(daemon.launch()) as plugin:
        bo = daemon.peer("bo")
        bo.refuses = p2pos.errors.error_of(code, "no", retry_after_ms=1500)
        with pytest.raises(kind) as refused:
            plugin.open(bo.peer_id, "/x/1")
        assert refused.value.code == code
        assert refused.value.retry_after == 1.5
        assert refused.value.hint


def test_what_the_peer_serves_stands_in_the_details() -> None:
    with FakeDaemon() as daemon, sync.connect(daemon.launch()) as plugin:
        bo = daemon.peer("bo")
        bo.serve("/echo/1", echo)
        with pytest.raises(p2pos.ProtocolNotSupported) as refused:
            plugin.open(bo.peer_id, "/x/1")
        assert refused.value.details == ("/echo/1",)
        with pytest.raises(p2pos.MisuseError, match="typo"):
            plugin.open(bo.peer_id[:-1] + ("q" if bo.peer_id[-1] != "q" else "p"), "/x/1")
        with pytest.raises(p2pos.PeerUnreachable):
            plugin.open(fake_peer_id("a stranger"), "/x/1")


def test_an_incoming_stream_can_be_refused_with_a_reason() -> None:
    with FakeDaemon() as daemon, sync.connect(daemon.launch()) as plugin:
        plugin.register("/game/1")
        in_thread(lambda: list(plugin.accept("/game/1", refuse=lambda info: f"no, {info.petname}")))
        with pytest.raises(p2pos.PeerRefused, match="no, bo"):
            daemon.peer("bo").open("/game/1")
        with pytest.raises(p2pos.AlreadyRegistered):
            plugin.register("/game/1")
        plugin.unregister("/game/1")
        with pytest.raises(p2pos.ProtocolNotSupported):
            daemon.peer("bo").open("/game/1")


@pytest.mark.parametrize("shell", ["sync", "aio"])
def test_a_crash_of_the_daemon_ends_every_call(shell: str) -> None:
    with FakeDaemon() as daemon:
        bo = daemon.peer("bo")
        bo.serve("/hang/1", lambda stream: stream.read() and None)

        def threads() -> None:
            with sync.connect(daemon.launch()) as plugin:
                stream = plugin.open(bo.peer_id, "/hang/1")
                in_thread(daemon.crash)
                with pytest.raises(p2pos.SessionEnded):
                    stream.read(timeout=5)
                with pytest.raises(p2pos.SessionEnded):
                    stream.write(b"x")
                with pytest.raises(p2pos.SessionEnded):
                    plugin.open(bo.peer_id, "/hang/1")
                assert plugin.wait_shutdown(5).reason

        async def tasks() -> None:
            async with aio.connect(daemon.launch()) as plugin:
                stream = await plugin.open(bo.peer_id, "/hang/1")
                reads = asyncio.create_task(stream.read())
                await asyncio.to_thread(daemon.crash)
                with pytest.raises(p2pos.SessionEnded):
                    await reads
                with pytest.raises(p2pos.SessionEnded):
                    await plugin.open(bo.peer_id, "/hang/1")
                assert (await plugin.wait_shutdown()).reason

        threads() if shell == "sync" else run(tasks())


def test_a_reset_by_the_other_plugin_shows_its_code() -> None:
    async def work() -> None:
        with FakeDaemon() as daemon:
            bo = daemon.peer("bo")
            bo.serve("/x/1", lambda stream: stream.reset(app_code=42))
            async with aio.connect(daemon.launch()) as plugin:
                stream = await plugin.open(bo.peer_id, "/x/1")
                with pytest.raises(p2pos.StreamReset) as reset:
                    await stream.read()
                assert (reset.value.code, reset.value.app_code) == (400, 42)
                assert not (await stream.wait_closed()).is_finished

    run(work())


def test_a_stalled_reader_stalls_its_own_stream_only() -> None:
    async def work() -> None:
        with FakeDaemon() as daemon:
            bo = daemon.peer("bo")
            go = threading.Event()

            def stall(stream: RemoteStream) -> None:
                go.wait(10)
                stream.read_all()
                stream.close_write()

            bo.serve("/stall/1", stall)
            bo.serve("/echo/1", echo)
            async with aio.connect(daemon.launch()) as plugin:
                stalled = await plugin.open(bo.peer_id, "/stall/1")
                flood = asyncio.create_task(stalled.write(bytes(4 << 20)))
                async with plugin.open(bo.peer_id, "/echo/1") as stream:
                    for _ in range(20):
                        await stream.write(b"x" * 1000)
                        assert await stream.read_exactly(1000) == b"x" * 1000
                assert not flood.done()
                go.set()
                await flood
                stalled.close_write()
                assert (await stalled.wait_closed()).bytes_out == 4 << 20

    run(work())


def test_cancelling_an_open_gives_it_up() -> None:
    async def work() -> None:
        with FakeDaemon() as daemon:
            bo = daemon.peer("bo")
            answered = threading.Event()

            def slow(body: m.Open) -> tuple[str, Callable[..., None]]:
                answered.wait(10)
                return "/x/1", lambda stream: None

            bo.way = slow
            async with aio.connect(daemon.launch()) as plugin:
                with pytest.raises(p2pos.RequestTimeout):
                    await plugin.open(bo.peer_id, "/x/1", timeout=0.01)
                # Whether Cancel or the answer was first: in the end the stream is gone on both sides.
                answered.set()
                await asyncio.to_thread(daemon.wait_for, lambda: not plugin._session.streams)

    run(work())


def test_datagrams_pass_both_ways() -> None:
    with FakeDaemon() as daemon, sync.connect(daemon.launch()) as plugin:
        plugin.register("/clock/1", datagrams=True)
        flows: list[sync.Flow] = []
        accepting = in_thread(lambda: flows.append(plugin.accept_flow("/clock/1", timeout=5)))
        far = daemon.peer("bo").open_flow("/clock/1")
        accepting.join()
        far.send_datagram(b"tick")
        assert flows[0].read_datagram(5) == b"tick"
        flows[0].send_datagram(b"tock")
        assert far.read_datagram() == b"tock"
        with pytest.raises(p2pos.RequestFailed) as too_big:
            flows[0].send_datagram(bytes(flows[0].datagram_max + 1))
        assert too_big.value.code == Code.TOO_BIG


def test_aio_accepts_and_opens_flows_and_may_refuse_them() -> None:
    async def work() -> None:
        with FakeDaemon() as daemon:
            bo = daemon.peer("bo")
            bo.serve("/clock/2", lambda flow: flow.send_datagram(flow.read_datagram().upper()))
            async with aio.connect(daemon.launch()) as plugin:
                await plugin.register("/clock/1", datagrams=True, trust="anyone", concurrent_max=3)
                far = asyncio.create_task(asyncio.to_thread(bo.open_flow, "/clock/1"))
                async with await plugin.accept_flow("/clock/1") as flow:
                    flow.send_datagram(b"tick")
                    assert await asyncio.to_thread((await far).read_datagram) == b"tick"
                    assert (flow.peer, flow.dropped) == (bo.peer_id, 0)
                with pytest.raises(p2pos.StreamReset):
                    await asyncio.to_thread((await far).read_datagram)
                async with plugin.open_flow(bo.peer_id, "/clock/2") as flow:
                    flow.send_datagram(b"tick")
                    assert await flow.read_datagram() == b"TICK"
                await plugin.unregister("/clock/1")
                with pytest.raises(p2pos.RequestFailed):
                    await plugin.unregister("/clock/1")

    run(work())


def test_aio_stops_reading_and_the_other_side_notices() -> None:
    async def work() -> None:
        with FakeDaemon() as daemon:
            bo = daemon.peer("bo")
            ends: list[Exception] = []

            def source(stream: RemoteStream) -> None:
                try:
                    while True:
                        stream.write(bytes(10_000))
                except p2pos.StreamStopped as end:
                    ends.append(end)
                    stream.read_all()

            bo.serve("/source/1", source)
            async with aio.connect(daemon.launch()) as plugin:
                stream = await plugin.open(bo.peer_id, "/source/1")
                room = bytearray(1000)
                assert await stream.read_into(room) == 1000
                stream.stop(9)
                stream.close_write()
                assert not (await stream.wait_closed()).is_finished
                with pytest.raises(p2pos.MisuseError):
                    await stream.read()
                with pytest.raises(p2pos.MisuseError):
                    await stream.write(b"after close_write")
            await asyncio.to_thread(daemon.wait_for, lambda: ends)
            assert [end.app_code for end in ends if isinstance(end, p2pos.P2posError)] == [9]

    run(work())


def test_leaving_a_stream_by_an_exception_resets_it() -> None:
    async def leave(plugin: aio.Plugin, peer: str, protocol: str) -> None:
        async with plugin.open(peer, protocol):
            raise KeyError("a bug of the plugin")

    async def work() -> None:
        with FakeDaemon() as daemon:
            bo = daemon.peer("bo")
            ends: list[p2pos.P2posError] = []

            def wait(stream: RemoteStream) -> None:
                try:
                    stream.read()
                except p2pos.StreamReset as end:
                    ends.append(end)

            bo.serve("/x/1", wait)
            async with aio.connect(daemon.launch()) as plugin:
                with pytest.raises(KeyError):
                    await leave(plugin, bo.peer_id, "/x/1")
                await asyncio.to_thread(daemon.wait_for, lambda: ends)
            assert ends[0].code == Code.APP

    run(work())


def test_sync_events_contacts_log_status_and_timeouts() -> None:
    with FakeDaemon() as daemon, sync.connect(daemon.launch("chat")) as plugin:
        bo = daemon.peer("bo")
        assert (plugin.plugin_id, plugin.peer_id) == ("chat", daemon.peer_id)
        assert plugin.grants
        assert [c.petname for c in plugin.contacts()] == ["bo"]
        events = plugin.subscribe("peer", "path")
        assert {next(events).kind, next(events).kind} == {"peer", "path"}
        bo.go(online=False)
        assert next(events).what == "disconnected"
        with pytest.raises(p2pos.MisuseError):
            next(plugin.subscribe("weather"))  # type: ignore[arg-type]
        plugin.status("degraded", "slow disk")
        assert plugin.log("one line", "debug")
        with pytest.raises(p2pos.MisuseError):
            plugin.log("x", "shout")  # type: ignore[arg-type]
        plugin.contacts()
        assert (daemon.status, daemon.logs[0].text) == ("slow disk", "one line")
        with pytest.raises(TimeoutError):
            plugin.accept("/x/1").one(timeout=0.01)
        with pytest.raises(TimeoutError):
            plugin.wait_shutdown(timeout=0.01)


def test_a_plugin_that_does_not_take_its_events_is_told_how_many_it_missed() -> None:
    with FakeDaemon() as daemon, sync.connect(daemon.launch()) as plugin:
        bo = daemon.peer("bo")
        events = plugin.subscribe("peer")
        assert next(events).missed == 0
        for _ in range(1100):
            bo.go(online=True)
        plugin.contacts()
        assert next(events).missed == 1100 - 1024


def test_events_contacts_log_and_status() -> None:
    async def work() -> None:
        with FakeDaemon() as daemon:
            bo = daemon.peer("bo")
            async with aio.connect(daemon.launch("chat")) as plugin:
                assert (plugin.plugin_id, plugin.peer_id) == ("chat", daemon.peer_id)
                assert [c.petname for c in await plugin.contacts()] == ["bo"]
                events = plugin.subscribe("peer")
                first = await anext(events)
                assert (first.kind, first.what, first.petname) == ("peer", "connected", "bo")
                await asyncio.to_thread(bo.go, online=False)
                assert (await anext(events)).what == "disconnected"
                assert plugin.log("x" * 100_000, "warn")
                plugin.status("waiting-network", "bo is away")
                await plugin.contacts()
                assert daemon.logs[0].level == "warn"
                assert daemon.logs[0].text.endswith("…")
                assert daemon.status == "bo is away"

    run(work())


def test_tokens_are_good_once_and_the_endpoint_file_works_without_one(tmp_path: pathlib.Path) -> None:
    with FakeDaemon(check_faults=False) as daemon:
        launch = daemon.launch()
        sync.connect(launch).close()
        with pytest.raises(p2pos.HandshakeRefused) as refused:
            sync.connect(launch)
        assert refused.value.code == Code.AUTH
        file = tmp_path / "endpoint.json"
        file.write_text(f'{{"endpoints": ["{daemon.endpoint}"], "secret": "{daemon.secrets.secret.hex()}"}}')
        with sync.connect(Launch.from_endpoint_file(file)) as plugin:
            assert plugin.plugin_id == "tool"
        with pytest.raises(p2pos.HandshakeRefused, match="did not prove"):
            sync.connect(Launch(daemon.endpoint, secret=bytes(32)))


def test_a_program_that_no_daemon_started_is_told_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("P2POS_ENDPOINT", raising=False)
    with pytest.raises(p2pos.LaunchError) as problem:
        sync.connect()
    assert "p2pos plugins run" in problem.value.hint
    with pytest.raises(p2pos.ConnectError):
        sync.connect(Launch("unix:/nonexistent/plugin.sock", "t"))
    with pytest.raises(p2pos.LaunchError):
        sync.connect(Launch("pigeon:loft", "t"))


def test_what_a_plugin_does_wrong_fails_its_test() -> None:
    daemon = FakeDaemon()
    launch = daemon.launch()
    sock = launch.dial()
    sock.sendall(encode_frame(launch.hello(), 1) + encode_frame(m.Data(99, b"x")))
    while sock.recv(65536):
        pass
    sock.close()
    with pytest.raises(p2pos.SessionEnded) as fault:
        daemon.close()
    assert fault.value.code == Code.PROTOCOL


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_browser_gets_not_a_byte(tcp: bool) -> None:
    with FakeDaemon(tcp=tcp, check_faults=False) as daemon:
        sock = Launch(daemon.endpoint).dial()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(100) == b""
        sock.close()


def test_two_plugins_talk_through_a_network_of_fake_daemons() -> None:
    with Network("ana", "bo") as net:
        far, near = sync.connect(net["bo"].launch()), sync.connect(net["ana"].launch())
        with far, near:
            far.register("/echo/1")
            in_thread(lambda: serve_echo(far))
            with near.open(net.peer_id("bo"), "/echo/1") as stream:
                stream.write(b"across")
                assert stream.read_exactly(6, timeout=5) == b"across"
                stream.close_write()
                assert stream.read(timeout=5) == b""
                assert stream.wait_closed(5).is_finished
            with pytest.raises(p2pos.PeerNotReady):
                near.open(net.peer_id("bo"), "/nothing/1")


def test_the_plugin_in_the_spec_works_as_it_stands(tmp_path: pathlib.Path) -> None:
    spec = (PROTOCOL / "SPEC.md").read_text(encoding="utf-8")
    program = spec.split("<!-- t1: a test runs this -->\n```python\n")[1].split("```\n")[0]
    (tmp_path / "main.py").write_text(program)
    with FakeDaemon() as daemon:
        command = [sys.executable, "-I", str(tmp_path / "main.py")]
        with subprocess.Popen(command, env=daemon.env(), stdin=subprocess.DEVNULL) as process:
            daemon.wait_registered("/hello/1")
            daemon.wait_ready()
            for name in ("bo", "mira"):
                stream = daemon.peer(name).open("/hello/1")
                stream.write(name[:1].encode())
                stream.write(name[1:].encode())
                stream.close_write()
                assert stream.read_all() == b"hello, " + name.encode()
                assert stream.wait_end().cause == m.Cause.FINISHED
            daemon.ask_to_end()
            assert process.wait(10) == 0


def test_a_plugin_ends_when_its_stdin_does(tmp_path: pathlib.Path) -> None:
    program = """
        from p2pos import sync
        with sync.connect() as plugin:
            print(plugin.wait_shutdown().reason)
    """
    source = pathlib.Path(p2pos.__file__).parent.parent
    with FakeDaemon() as daemon:
        env = daemon.env() | {"P2POS_EXIT_ON_STDIN_CLOSE": "1", "PYTHONPATH": str(source)}
        command = [sys.executable, "-c", textwrap.dedent(program)]
        with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            daemon.wait_ready()
            assert process.stdin is not None
            process.stdin.close()
            assert process.stdout is not None
            assert process.stdout.read() == "stdin was closed\n"
            assert process.wait(10) == 0


def test_the_daemon_may_deliver_one_byte_at_a_time() -> None:
    """The handshake and what follows come in crumbs, from a hand-made daemon."""
    near, far = socket.socketpair()
    near.settimeout(5)
    hello = m.Hello("p2pOS", 1, 1, launch_token="t")
    welcome = encode_frame(m.Welcome(version=1, plugin_id="x"), 1) + encode_frame(m.Ping(7), 3)

    def daemon() -> None:
        far.recv(65536)
        for byte in welcome:
            far.send(bytes((byte,)))

    thread = in_thread(daemon)
    got, leftover = p2pos.link.call(near, Launch("", "t"), hello)
    thread.join()
    assert got.plugin_id == "x"
    assert encode_frame(m.Ping(7), 3).startswith(leftover)
    near.close()
    far.close()
