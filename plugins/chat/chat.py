#!/usr/bin/env python3
"""Chat in a terminal, or from a script. Talks to the running chat plugin through its socket.

    chat.py                       talk: type to the person chosen with /to NAME; /peers, /history, /quit
    chat.py send NAME TEXT        exit code 0 once the other side has it on its disk
    chat.py history [NAME]        what was said
    chat.py follow                what is being said, until ctrl-c
    chat.py peers                 whom you can talk to

Exit codes: 0 ok, 1 failed, 2 usage, 3 the plugin is not running, 5 no such contact, 6 not acknowledged in time (it
stays queued and will be sent). Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from typing import Any

OK, FAILED, USAGE, NOT_RUNNING, NOT_FOUND, TIMEOUT = 0, 1, 2, 3, 5, 6
SOCKET = "chat.sock"


class Failure(Exception):
    """Ends the program with an exit code, a text and what to try next."""

    def __init__(self, code: int, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.hint = hint


class Plugin:
    """The plugin's end of the socket."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        here = os.getcwd()
        try:
            # From within: a socket's path has 107 bytes at most.
            os.chdir(directory)
            self._sock.connect(SOCKET)
        except OSError as problem:
            self._sock.close()
            text = f"the chat plugin does not run with its data in {directory}: {problem.strerror}"
            raise Failure(NOT_RUNNING, text, "p2pos plugins start chat; --data DIR if its data is elsewhere") from None
        finally:
            os.chdir(here)
        self._lines = self._sock.makefile("r", encoding="utf-8", newline="\n")

    def close(self) -> None:
        """Leaves."""
        self._lines.close()
        self._sock.close()

    def say(self, **request: Any) -> None:
        """Writes a request; its answer comes through `read`."""
        self._sock.sendall(json.dumps(request).encode() + b"\n")

    def read(self, timeout: float | None = None) -> dict[str, Any]:
        """The next answer or event."""
        self._sock.settimeout(timeout)
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise Failure(TIMEOUT, "nothing came in time") from None
        if not line:
            raise Failure(NOT_RUNNING, "the chat plugin has ended", "p2pos plugins logs chat")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """A request and its answer, on a connection that follows nothing."""
        self.say(**request)
        return checked(self.read(10))

    def events(self) -> Iterator[dict[str, Any]]:
        """Whatever comes."""
        while True:
            yield self.read()


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, if it is a good one."""
    if answer.get("ok"):
        return answer
    if "names" in answer:
        names = ", ".join(answer["names"]) or "none yet"
        raise Failure(NOT_FOUND, answer["error"], f"your contacts: {names}; p2pos contacts add adds one")
    raise Failure(FAILED, answer.get("error", "the plugin said no"))


def harmless(text: str) -> str:
    """Other people's text, with everything that could play tricks on a terminal or reader written out."""
    return "".join(c if c == " " or unicodedata.category(c)[0] not in "CZ" else f"\\u{{{ord(c):x}}}" for c in text)


def line_of(message: dict[str, Any]) -> str:
    """A message as people read it: time, who, text, and whether it has arrived."""
    clock = time.strftime("%H:%M", time.localtime(message["at_ms"] / 1000))
    name = harmless(message["name"])
    if message["state"] == "received":
        return f"[{clock}] {name}: {harmless(message['text'])}"
    mark = "" if message["state"] == "acked" else "  (waits)"
    return f"[{clock}] you to {name}: {harmless(message['text'])}{mark}"


# --- commands ---


def send(plugin: Plugin, name: str, text: str, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    plugin.ask(do="follow")
    plugin.say(do="send", to=name, text=text, tag="send")
    sent = None
    acked = set()
    while sent is None or sent not in acked:
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise Failure(TIMEOUT, "")
            answer = plugin.read(left)
        except Failure as end:
            if end.code != TIMEOUT:
                raise
            text = f"{name} has not acknowledged within {timeout:g} s; the message stays queued and will be sent"
            raise Failure(TIMEOUT, text, "chat.py follow shows when it arrives") from None
        if answer.get("tag") == "send":
            checked(answer)
            sent = (answer["to"], answer["id"])
        elif answer.get("event") == "acked":
            acked.add((answer["peer"], answer["id"]))
    return OK


def history(plugin: Plugin, name: str | None, last: int, as_json: bool) -> int:
    answer = plugin.ask(do="history", **{"with": name, "last": last})
    if as_json:
        print(json.dumps({"schema": 1, "messages": answer["messages"]}, ensure_ascii=False))
    for message in [] if as_json else answer["messages"]:
        print(line_of(message))
    return OK


def follow(plugin: Plugin, as_json: bool) -> int:
    plugin.ask(do="follow")
    for event in plugin.events():
        if as_json:
            print(json.dumps(event, ensure_ascii=False), flush=True)
        elif event["event"] != "queued":
            print(line_of(event), flush=True)
    return OK


def peers(plugin: Plugin, as_json: bool) -> int:
    answer = plugin.ask(do="peers")
    if as_json:
        print(json.dumps({"schema": 1, "peers": answer["peers"]}, ensure_ascii=False))
    for peer in [] if as_json else answer["peers"]:
        here = "connected" if peer["connected"] else "away"
        waiting = f", {peer['waiting']} messages wait" if peer["waiting"] else ""
        print(f"{harmless(peer['name'])}  {here}{waiting}")
    return OK


# --- the terminal ---


class Terminal:
    """Prints what comes above the line that is being typed."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin
        self._to = ""
        self._typed = self._line_buffer()

    def run(self) -> int:
        self._plugin.ask(do="follow")
        threading.Thread(target=self._listen, daemon=True).start()
        self._plugin.say(do="peers", tag="first")
        try:
            while True:
                self._do(input(self._prompt()).strip())
        except (EOFError, KeyboardInterrupt):
            print()
            return OK

    def _do(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "/to":
            self._to = rest.strip()
        elif word == "/peers":
            self._plugin.say(do="peers", tag="peers")
        elif word == "/history":
            self._plugin.say(do="history", tag="history", **{"with": rest.strip() or self._to or None, "last": 20})
        elif word in ("/quit", "/exit"):
            raise EOFError
        elif word.startswith("/"):
            self._show("there are /to NAME, /peers, /history [NAME], /quit")
        elif line and not self._to:
            self._show("to whom? /to NAME first; /peers lists them")
        elif line:
            self._plugin.say(do="send", to=self._to, text=line, tag="send")

    def _listen(self) -> None:
        try:
            for answer in self._plugin.events():
                self._take(answer)
        except (Failure, OSError, ValueError) as end:
            self._show(f"error: {end}")
            os._exit(NOT_RUNNING)

    def _take(self, answer: dict[str, Any]) -> None:
        if answer.get("event") == "message":
            self._show(line_of(answer))
        elif answer.get("event") == "acked":
            self._show(f"  {harmless(answer['name'])} has it: {harmless(answer['text'][:40])}")
        elif answer.get("ok") is False:
            known = f"; there are {', '.join(map(harmless, answer['names']))}" if answer.get("names") else ""
            self._show(f"error: {answer['error']}{known}")
        elif "peers" in answer:
            names = [f"{harmless(p['name'])}{'' if p['connected'] else ' (away)'}" for p in answer["peers"]]
            if answer.get("tag") == "first" and len(answer["peers"]) == 1:
                self._to = answer["peers"][0]["name"]
            self._show("people: " + (", ".join(names) or "none yet; add one with p2pos contacts add"))
        elif "messages" in answer:
            self._show("\n".join(map(line_of, answer["messages"])) or "nothing was said yet")

    def _prompt(self) -> str:
        return f"{harmless(self._to) or '(nobody)'}> "

    def _show(self, text: str) -> None:
        if sys.stdout.isatty():
            print(f"\r\033[K{text}\n{self._prompt()}{self._typed()}", end="", flush=True)
        else:
            print(text, flush=True)

    @staticmethod
    def _line_buffer() -> Any:
        try:
            import readline
        except ImportError:
            return lambda: ""
        return readline.get_line_buffer


def data_directory(told: str | None) -> pathlib.Path:
    """Where the plugin keeps its data: --data, P2POS_DATA_DIR, or the usual place; the daemon's directory will do."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    place = pathlib.Path(told or os.environ.get("P2POS_DATA_DIR") or pathlib.Path(base) / "p2pos")
    within = place / "plugin-data" / "chat"
    return within if within.is_dir() else place


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="chat.py", description="Chat with your contacts over p2pOS.")
    top.add_argument("--data", metavar="DIR", help="the data directory of the chat plugin, or of the daemon")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    one = commands.add_parser("send", help="send one message and wait until the other side has it")
    one.add_argument("name")
    one.add_argument("text", help='the message; "-" reads it from standard input')
    one.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS")
    two = commands.add_parser("history", help="what was said")
    two.add_argument("name", nargs="?")
    two.add_argument("--last", type=int, default=100, metavar="N")
    two.add_argument("--json", action="store_true")
    commands.add_parser("follow", help="what is being said").add_argument("--json", action="store_true")
    commands.add_parser("peers", help="whom you can talk to").add_argument("--json", action="store_true")
    return top


def main() -> int:
    told = parser().parse_args()
    try:
        plugin = Plugin(data_directory(told.data))
        if told.command == "send":
            text = sys.stdin.read().rstrip("\n") if told.text == "-" else told.text
            return send(plugin, told.name, text, told.timeout)
        if told.command == "history":
            return history(plugin, told.name, told.last, told.json)
        if told.command == "follow":
            return follow(plugin, told.json)
        if told.command == "peers":
            return peers(plugin, told.json)
        return Terminal(plugin).run()
    except Failure as end:
        print(f"error: {end}", file=sys.stderr)
        if end.hint:
            print(f"  try: {end.hint}", file=sys.stderr)
        return end.code
    except KeyboardInterrupt:
        return OK


if __name__ == "__main__":
    sys.exit(main())
