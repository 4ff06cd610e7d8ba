"""Chat plugins as processes, joined by fake daemons; either side is killed and started again."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, cast

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "sdk-python" / "src")]

from p2pos import aio  # noqa: E402
from p2pos.testing import Network  # noqa: E402

import chat  # noqa: E402
import delivery  # noqa: E402
import store as store_module  # noqa: E402
from store import STORES_OF_A_PEER_MAX, Store, StoreError  # noqa: E402

BARE = [sys.executable, "-E", "-s", "-S", "-B"]
"""Python without site packages: what a checkout on a fresh machine has."""
WAIT_S = 20
"""Seconds after which something hangs."""


class Person:
    """One user: a data directory, and a chat plugin that comes and goes."""

    def __init__(self, net: Network, name: str, directory: pathlib.Path) -> None:
        self.name = name
        self._daemon = net[name]
        self._directory = directory / name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = self._daemon.env("chat", self._directory)
        command = [*BARE, str(HERE / "main.py")]
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
        self._daemon.wait_registered("/chat/1")
        self._daemon.wait_for((self._directory / "chat.sock").exists)
        self._daemon.wait_for(lambda: self.cli("peers")[0] == 0)

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(WAIT_S)
        self._daemon.wait_for(lambda: "/chat/1" not in self._daemon._hall.registered)

    def stop(self) -> int:
        assert self._process is not None
        self._daemon.ask_to_end()
        return self._process.wait(WAIT_S)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(WAIT_S)

    def cli(self, *arguments: str) -> tuple[int, str, str]:
        command = [
            sys.executable,
            "-E",
            "-s",
            "-S",
            "-B",
            str(HERE / "chat.py"),
            "--data",
            str(self._directory),
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S + 10, check=False)
        return done.returncode, done.stdout, done.stderr

    def send(self, to: str, text: str, timeout: float = WAIT_S) -> int:
        return self.cli("send", to, text, "--timeout", str(timeout))[0]

    def texts(self, name: str, state: str) -> list[str]:
        code, out, err = self.cli("history", name, "--json", "--last", "10000")
        assert code == 0, err
        return [message["text"] for message in json.loads(out)["messages"] if message["state"] == state]

    def queue(self, to: str, *texts: str) -> None:
        """Sends without waiting for acks, on one connection."""
        plugin = chat.Plugin(self._directory)
        for text in texts:
            plugin.ask(do="send", to=to, text=text)
        plugin.close()


@pytest.fixture
def people(tmp_path: pathlib.Path) -> Iterator[dict[str, Person]]:
    with Network("ana", "bo", "mira") as net:
        all_of_them = {name: Person(net, name, tmp_path) for name in ("ana", "bo", "mira")}
        yield all_of_them
        for person in all_of_them.values():
            person.end()


def test_ana_talks_with_bo_and_mira_at_once(people: dict[str, Person]) -> None:
    ana, bo, mira = people.values()
    for person in (ana, bo, mira):
        person.start()
    assert ana.send("bo", "hello bo") == 0
    assert ana.send("mira", "hello mira") == 0
    assert bo.send("ana", "hello ana, bo here") == 0
    assert mira.send("ana", "hello ana, mira here") == 0
    assert ana.texts("bo", "acked") == ["hello bo"]
    assert bo.texts("ana", "received") == ["hello bo"]
    assert mira.texts("ana", "received") == ["hello mira"]
    code, out, _ = ana.cli("history")
    assert code == 0
    assert "you to bo: hello bo" in out
    assert "mira: hello ana, mira here" in out
    assert [person.stop() for person in (ana, bo, mira)] == [0, 0, 0]


def test_a_message_to_somebody_away_waits_and_arrives_once(people: dict[str, Person]) -> None:
    ana, bo, _ = people.values()
    ana.start()
    code, _, err = ana.cli("send", "bo", "are you there?", "--timeout", "0.3")
    assert code == 6
    assert "stays queued" in err
    assert "1 messages wait" in ana.cli("peers")[1]
    bo.start()
    assert ana.send("bo", "now?") == 0
    assert bo.texts("ana", "received") == ["are you there?", "now?"]


def test_nothing_is_lost_or_doubled_when_the_receiver_is_killed(people: dict[str, Person]) -> None:
    ana, bo, _ = people.values()
    ana.start()
    bo.start()
    texts = [f"message {number}" for number in range(60)]
    ana.queue("bo", *texts[:20])
    bo.kill()
    acked = ana.texts("bo", "acked")
    ana.queue("bo", *texts[20:40])
    bo.start()
    assert set(acked) <= set(bo.texts("ana", "received") + texts)
    ana.queue("bo", *texts[40:59])
    assert ana.send("bo", texts[59]) == 0
    assert bo.texts("ana", "received") == texts
    assert ana.texts("bo", "acked") == texts


def test_nothing_is_lost_or_doubled_when_the_sender_is_killed(people: dict[str, Person]) -> None:
    ana, bo, _ = people.values()
    ana.start()
    bo.start()
    texts = [f"message {number}" for number in range(41)]
    ana.queue("bo", *texts[:20])
    ana.kill()
    ana.start()
    ana.queue("bo", *texts[20:40])
    assert ana.send("bo", texts[40]) == 0
    assert bo.texts("ana", "received") == texts


def test_what_goes_wrong_has_its_exit_code_and_the_next_step(people: dict[str, Person], tmp_path: pathlib.Path) -> None:
    ana = people["ana"]
    ana.start()
    code, _, err = ana.cli("send", "nobody", "x")
    assert code == 5
    assert "your contacts: bo, mira" in err
    assert ana.cli("send", "bo", "  ")[0] == 1
    assert ana.cli("send")[0] == 2
    code, _, err = people["mira"].cli("peers")
    assert code == 3
    assert "p2pos plugins start chat" in err


def test_follow_tells_what_comes(people: dict[str, Person], tmp_path: pathlib.Path) -> None:
    ana, bo, _ = people.values()
    ana.start()
    bo.start()
    follower = chat.Plugin(tmp_path / "bo")
    follower.ask(do="follow")
    assert ana.send("bo", "did you see?") == 0
    event = follower.read(WAIT_S)
    follower.close()
    assert (event["event"], event["name"], event["text"]) == ("message", "ana", "did you see?")


def test_the_terminal_takes_commands_from_a_pipe(people: dict[str, Person], tmp_path: pathlib.Path) -> None:
    ana, bo, _ = people.values()
    ana.start()
    bo.start()
    command = [sys.executable, str(HERE / "chat.py"), "--data", str(tmp_path / "ana")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as terminal:
        assert terminal.stdin is not None
        assert terminal.stdout is not None
        terminal.stdin.write("hello?\n/to bo\nhi bo\n")
        terminal.stdin.flush()
        said = ""
        while "bo has it: hi bo" not in said:
            said += terminal.stdout.readline()
        terminal.stdin.close()
        assert terminal.wait(WAIT_S) == 0
    assert "to whom?" in said
    assert "people: bo, mira" in said


# --- people who answer badly ---


class Answering:
    """A plugin whose every stream answers the same; counts how often it is asked."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.opened = 0

    def open(self, peer: str, protocol: str, timeout: float) -> Answering:
        self.opened += 1
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._answer

    async def write(self, data: bytes) -> None:
        pass

    def log(self, text: str, level: str) -> None:
        pass


@pytest.mark.parametrize(
    "answer",
    [b"[" * 1000 + b"\n", b"[" * 100_000 + b"\n", b"x" * 2000, b'{"ack": "1"}\n', b"\xff\n", b'{"ack": 1}\n'],
    ids=["deep", "deep and long", "endless", "no number", "no text", "on a full disk"],
)
def test_a_bad_answer_is_not_asked_for_again_at_once(
    answer: bytes, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.queue("p2p1q", "hi")

    def refuse(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    monkeypatch.setattr(delivery, "RETRY_FIRST_S", 0.1)
    peer = Answering(answer)

    async def deliver() -> bool:
        its = delivery.Delivery(cast("aio.Plugin", peer), store, lambda *_: None, lambda *_: None)
        its._is_running = True
        its.nudge("p2p1q")
        await asyncio.sleep(0.5)
        (sender,) = its._senders.values()
        sender.cancel()
        its._is_running = False
        return (await asyncio.gather(sender, return_exceptions=True))[0] is not None

    assert asyncio.run(deliver()), "the sender still tries"
    assert 1 <= peer.opened <= 4
    assert list(store.talk("p2p1q").outbox) == [1], "it still waits"


def test_an_answer_of_boxes_in_boxes_is_a_bad_line() -> None:
    async def read() -> None:
        async for _ in delivery.lines(Answering(b"[" * 100_000 + b"\n"), delivery.LINE_BYTES_MAX):
            pass

    with pytest.raises(ValueError, match="boxes"):
        asyncio.run(read())


# --- the store alone ---


def test_a_line_cut_by_a_kill_is_dropped_and_the_rest_kept(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    store.queue("p2p1q", "one")
    store.queue("p2p1q", "two")
    store.acknowledge("p2p1q", 1)
    path = tmp_path / "talks" / "p2p1q.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        again = Store(tmp_path)
        talk = again.talk("p2p1q")
        assert (talk.last_out, len(talk.outbox)) == ([0, 1, 2][min(kept, 2)], [0, 1, 2][min(kept, 2)])
        again.queue("p2p1q", "three")
        assert Store(tmp_path).talk("p2p1q").messages[-1].text == "three"


def test_a_store_knows_itself_and_what_it_has_from_whom(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    assert store.receive("p2p1q", "their-store", 1, 5, "hi") is not None
    assert store.receive("p2p1q", "their-store", 1, 5, "hi") is None
    assert store.receive("p2p1q", "their-new-store", 1, 5, "hi from a new disk") is not None
    again = Store(tmp_path)
    assert again.id == store.id
    assert again.receive("p2p1q", "their-store", 1, 5, "hi") is None
    assert [message.text for message in again.talk("p2p1q").messages] == ["hi", "hi from a new disk"]


def test_a_full_disk_takes_all_of_a_line_or_nothing_of_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.queue("p2p1q", "one")
    path = tmp_path / "talks" / "p2p1q.jsonl"
    whole = path.read_bytes()
    write, truncate = os.write, os.ftruncate

    def full(handle: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        store.queue("p2p1q", "two")
    assert path.read_bytes() == whole
    # Even if nothing can be taken back now, it is before the next line.
    monkeypatch.setattr(os, "ftruncate", lambda handle, size: full(handle, b""))
    with pytest.raises(StoreError):
        store.acknowledge("p2p1q", 1)
    assert path.read_bytes() != whole
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    monkeypatch.setattr(os, "ftruncate", truncate)
    store.queue("p2p1q", "three")
    again = Store(tmp_path).talk("p2p1q")
    assert [(message.number, message.text) for message in again.outbox.values()] == [(1, "one"), (2, "three")]
    assert not path.with_suffix(".damaged").exists()


def test_a_damaged_line_costs_that_line_only_and_its_bytes_are_kept(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    for text in ("one", 'two {"k": "', "three"):
        store.queue("p2p1q", text)
    path = tmp_path / "talks" / "p2p1q.jsonl"
    one, two, three = path.read_bytes().splitlines(keepends=True)
    deep = b'{"k": ' + b"[" * 100_000 + b"\n"
    for number, damage in enumerate(
        (b'{"k": "out", "n": 9, "te', b"\0\0\n", b'{"k": "out", "n": 4}\n', b"[1]\n", deep)
    ):
        path.write_bytes(one + damage + two + three)
        path.with_suffix(".damaged").unlink(missing_ok=True)
        for talk in (Store(tmp_path).talk("p2p1q"), Store(tmp_path).talk("p2p1q")):
            texts = [message.text for message in talk.outbox.values()]
            assert texts == ["one", 'two {"k": "', "three"], number
            assert talk.last_out == 4, "the lost line may have been a message that they have"
        assert path.with_suffix(".damaged").read_bytes().rstrip(b"\n") == damage.rstrip(b"\n")
        assert Store(tmp_path).queue("p2p1q", "five").number == 5
        assert Store(tmp_path).talk("p2p1q").messages[-1].text == "five"


def test_a_contact_with_ever_new_store_ids_does_not_fill_the_memory(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    for number in range(100):
        store.receive("p2p1q", "their-store", number + 1, 5, "hi")
        store.receive("p2p1q", f"invented-{number}", 1, 5, "hi")
    for known in (store.talk("p2p1q").last_in, Store(tmp_path).talk("p2p1q").last_in):
        assert len(known) == STORES_OF_A_PEER_MAX
        assert known["their-store"] == 100


SMALL = {"COMPACT_BYTES": 20_000, "KEEP_BYTES": 10_000, "ARCHIVE_BYTES_MAX": 50_000}
"""Sizes at which a test sees many rewritings."""


def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(store_module, name, value)


def test_a_talk_that_goes_on_for_years_does_not_fill_the_disk(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_files(monkeypatch)
    store = Store(tmp_path)
    store.queue("p2p1q", "never acknowledged")
    for number in range(2, 2000):
        assert store.queue("p2p1q", f"out {number}").number == number
        store.acknowledge("p2p1q", number)
        assert store.receive("p2p1q", "their-store", number, 5, f"in {number}") is not None
    folder = tmp_path / "talks"
    sizes = {path.suffix: path.stat().st_size for path in folder.iterdir()}
    assert sizes[".jsonl"] < SMALL["COMPACT_BYTES"] + 1000
    assert sizes[".old"] <= SMALL["ARCHIVE_BYTES_MAX"]
    assert sizes[".older"] <= SMALL["ARCHIVE_BYTES_MAX"]
    assert set(sizes) == {".jsonl", ".old", ".older", ""}
    again = Store(tmp_path)
    talk = again.talk("p2p1q")
    assert [message.text for message in talk.outbox.values()] == ["never acknowledged"]
    assert (talk.last_out, talk.last_in) == (1999, {"their-store": 1999})
    assert talk.messages[-1].text == "in 1999"
    assert again.receive("p2p1q", "their-store", 1, 5, "an old one, again") is None
    archived = (folder / "p2p1q.old").read_bytes().splitlines()
    assert all(json.loads(line)["k"] in ("out", "ack", "in") for line in archived)


def test_what_waits_is_kept_however_much_it_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_files(monkeypatch)
    store = Store(tmp_path)
    renames: list[pathlib.Path] = []
    rename = pathlib.Path.rename

    def counted(old: pathlib.Path, new: pathlib.Path) -> pathlib.Path:
        renames.append(new)
        return rename(old, new)

    monkeypatch.setattr(pathlib.Path, "rename", counted)
    for _ in range(1000):
        store.queue("p2p1q", "x" * 100)
    assert len(Store(tmp_path).talk("p2p1q").outbox) == 1000
    assert len(renames) < 10, "rewritten each time that it has doubled, not with every line"


def test_a_kill_while_a_talk_is_rewritten_loses_nothing_that_was_promised(tmp_path: pathlib.Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    code = f"""
import sys
sys.path[:0] = {sys.path[:2]!r}
import store
for name, value in {SMALL!r}.items(): setattr(store, name, value)
talks = store.Store(__import__("pathlib").Path({str(tmp_path)!r}))
heard = talks.talk("p2p1q").last_in.get("their-store", 0)
while True:
    number = talks.queue("p2p1q", "waits " + "x" * 50).number
    if number % 50:
        talks.acknowledge("p2p1q", number)
    heard += 1
    talks.receive("p2p1q", "their-store", heard, 5, "in")
    print(number, heard, flush=True)
"""
    promised_out = promised_in = 0
    for _ in range(25):
        with subprocess.Popen([*BARE, "-c", code], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(1, 200)):
                promised_out, promised_in = map(int, child.stdout.readline().split())
            child.kill()
            # Lines that it still managed to print are promises, too.
            for line in child.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    promised_out, promised_in = map(int, line.split())
            child.wait(WAIT_S)
        talk = Store(tmp_path).talk("p2p1q")
        assert talk.last_out >= promised_out
        assert talk.last_in["their-store"] >= promised_in
        waiting = set(range(50, promised_out + 1, 50))
        assert waiting <= set(talk.outbox), "a message that waits was lost"
        assert not talk.path.with_suffix(".damaged").exists()
    assert (tmp_path / "talks" / "p2p1q.old").exists(), "it was never rewritten"


def test_texts_have_limits(tmp_path: pathlib.Path) -> None:
    store = Store(tmp_path)
    store.queue("p2p1q", "x" * 16384)
    with pytest.raises(StoreError):
        store.queue("p2p1q", "x" * 16385)
    with pytest.raises(StoreError):
        store.queue("p2p1q", " \n")


def test_other_peoples_text_plays_no_tricks_on_the_terminal() -> None:
    assert chat.harmless("a\x1b[2Jb\u202ec\nd") == "a\\u{1b}[2Jb\\u{202e}c\\u{a}d"
    assert chat.harmless("naïve 🐟") == "naïve 🐟"
