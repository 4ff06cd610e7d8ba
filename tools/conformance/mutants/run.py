"""Breaks one rule at a time in a copy of our code, and sees that the named case of the kit catches it.

    run.py [--only python|c|rust]... [--minutes N] [NAME...]

The checkout is never touched. Python mutants get a copy of the SDK each. Rust and C are copied once, with all their mutants in, and built once: where
`replace` says MUTANT stands a look at the variable P2POS_MUTANT, so that a run chooses one of them, or none. Before any mutant is tried,
each case that is to catch one must pass without: on the checkout's Python SDK, and on the built copies with none chosen.

Needs the kit and the daemon of target/debug (KIT, P2POS), for Rust cargo, for C cmake. Says at the end how many were caught; a survivor is a
failure, and so is whatever there was no time for.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
KIT = os.environ.get("KIT", str(TARGET / "debug/p2pos-conformance"))
PLACE = TARGET / "mutants"
"""Where the copies with the mutants stand and are built."""
CHOOSER = "P2POS_MUTANT"
JOBS = 12
"""Cases at the same time: one that catches a mutant mostly waits for what does not come."""
CASE_S_MAX = 120
PYTHON = "sdk-python/src"
# Languages that need no compiler: the folder that is copied, and what starts the agent in it.
INTERPRETED = {
    "python": (PYTHON, ["python3", "-B", str(ROOT / "sdk-python/conformance/agent_aio.py")]),
    "node": ("plugins/echo-node", ["node", "conformance/agent.mjs"]),
    "tcl": ("plugins/echo-tcl", ["tclsh", "conformance/agent.tcl"]),
}

IN_RUST = """
fn mutant(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("P2POS_MUTANT").unwrap_or_default()) == name
}
"""
IN_C = """#include <stdlib.h>
#include <string.h>
static int mutant(const char *name) {
    const char *chosen = getenv("P2POS_MUTANT");
    return chosen != NULL && strcmp(chosen, name) == 0;
}
"""

LANGUAGES = [*INTERPRETED, "c", "rust"]

Mutant = dict[str, str]


def language(mutant: Mutant) -> str:
    """In which it is written, by its file."""
    for name, (folder, _start) in INTERPRETED.items():
        if mutant["file"].startswith(folder):
            return name
    return "c" if mutant["file"].startswith("sdk-c/") else "rust"


def is_of_daemon(case: str) -> bool:
    """Cases of daemons are told by their names."""
    return case.startswith("d-")


# --- judging ---


def judge(case: str, agent: list[str], chosen: str = "") -> dict[str, Any]:
    """What the kit reports of this case; `agent` is who is judged, or the daemon's program."""
    env = os.environ | {CHOOSER: chosen, "KIT": KIT}
    if is_of_daemon(case):
        words = [sys.executable, "-B", "tools/conformance/daemons.py", "--only", case, "--format", "json"]
        env |= {"P2POS": agent[0]}
    else:
        # The kit hands on nothing of its own environment.
        words = [KIT, "plugin", "--tcp", "--only", case, "--format", "json", "--", "env", f"{CHOOSER}={chosen}", *agent]
    done = subprocess.run(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=False, text=True, timeout=CASE_S_MAX)
    told = [row for row in json.loads(done.stdout)["cases"] if row["id"] == case]
    if len(told) != 1:
        raise SystemExit(f"no case is called {case}")
    row: dict[str, Any] = told[0]
    return row


def is_passed(row: dict[str, Any]) -> bool:
    """A case that could not be judged has not caught anything, and has not passed."""
    if row["verdict"] not in ("passed", "failed"):
        raise SystemExit(f"{row['id']} was not judged: {row}")
    return bool(row["verdict"] == "passed")


# --- who is judged ---


def interpreted_agent(name: str, folder: pathlib.Path) -> list[str]:
    """The agent in this language, on this copy of the folder."""
    program, *words = INTERPRETED[name][1]
    return ["env", f"PYTHONPATH={folder}", program, *words[:-1], str(folder / words[-1])]


def apply(text: str, mutants: Iterable[Mutant]) -> str:
    """The text with all these mutants in it; each is about a place of its own."""
    for mutant in mutants:
        if text.count(mutant["find"]) != 1:
            raise SystemExit(f"{mutant['name']}: its text stands {text.count(mutant['find'])} times in {mutant['file']}")
        text = text.replace(mutant["find"], mutant["replace"].replace("MUTANT", f'mutant("{mutant["name"]}")'))
    return text


def copy(mutants: list[Mutant], parts: list[str]) -> pathlib.Path:
    """These parts of the checkout, with the mutants in. Only what differs is written, so that little is built again."""
    place = PLACE / "tree"
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *parts]
    files = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, files):
        data = (ROOT / name).read_bytes()
        own = [mutant for mutant in mutants if mutant["file"] == name]
        if own:
            text = apply(data.decode(), own)
            data = (text + IN_RUST if name.endswith(".rs") else IN_C + text).encode()
        target = place / name
        if not target.exists() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            shutil.copymode(ROOT / name, target)
    return place


def built_c(mutants: list[Mutant]) -> pathlib.Path:
    """The C agent with all mutants of C."""
    parts = ["sdk-c", "sdk-python/src", "plugin-protocol/vectors", "plugin-protocol/releases"]
    tree, build = copy(mutants, parts), PLACE / "sdk-c"
    configure = ["cmake", "-S", str(tree / "sdk-c"), "-B", str(build), "-DP2POS_BUILD_TESTS=ON", "-DP2POS_BUILD_EXAMPLES=OFF"]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    command = ["cmake", "--build", str(build), "--target", "conformance_agent", "--parallel", "2"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return build / "conformance_agent"


def lend_foreign_crates(build: pathlib.Path) -> None:
    """Other people's crates are built already, in the checkout's own target: links spare minutes. Never ours, which are written anew."""
    words = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    told = json.loads(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    targets = [target["name"] for package in told["packages"] for target in package["targets"]]
    ours = {name.replace("-", "_") for name in [*targets, *(package["name"] for package in told["packages"])]}
    ours.discard("build_script_build")  # everybody's is called that, and lies in a folder with its crate's name

    def skip(_folder: str, names: list[str]) -> list[str]:
        crates = {name: name.removeprefix("lib").replace("-", "_").rsplit("_", 1)[0] for name in names}
        return [name for name, crate in crates.items() if crate in ours]

    for part in ("deps", "build", ".fingerprint"):
        shutil.copytree(TARGET / "debug" / part, build / "debug" / part, ignore=skip, copy_function=os.link)


def built_rust(mutants: list[Mutant]) -> tuple[pathlib.Path, pathlib.Path]:
    """The Rust agent and the daemon with all mutants of Rust."""
    tree, build = copy(mutants, ["."]), PLACE / "cargo"
    if not build.exists() and (TARGET / "debug").exists():
        lend_foreign_crates(build)
    words = [os.environ.get("CARGO", "cargo"), "build", "--quiet", "--locked", "-p", "p2pos", "-p", "p2pos-conformance"]
    env = os.environ | {"CARGO_TARGET_DIR": str(build)}
    subprocess.run([*words, "--bin", "p2pos", "--example", "agent-rust"], cwd=tree, env=env, check=True)
    return build / "debug/examples/agent-rust", build / "debug/p2pos"


# --- all of it ---


def subjects(mutants: list[Mutant], only: str) -> dict[bool, list[str]]:
    """Who is judged by cases of plugins (False) and of daemons (True), with the mutants of one language."""
    if only in INTERPRETED:
        return {False: interpreted_agent(only, ROOT / INTERPRETED[only][0])}
    if only == "c":
        return {False: [str(built_c(mutants))]}
    agent, daemon = built_rust(mutants)
    return {False: [str(agent)], True: [str(daemon)]}


def is_caught(mutant: Mutant, agents: dict[bool, list[str]]) -> bool:
    """Whether the named case fails on the mutant."""
    case = mutant["caught_by"]
    name = language(mutant)
    if name not in INTERPRETED:
        return not is_passed(judge(case, agents[is_of_daemon(case)], mutant["name"]))
    source = INTERPRETED[name][0]
    with tempfile.TemporaryDirectory(prefix="p2pos-mutant") as place:
        folder = pathlib.Path(place) / "copy"
        shutil.copytree(ROOT / source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        file = folder / pathlib.Path(mutant["file"]).relative_to(source)
        file.write_text(apply(file.read_text(), [mutant]))
        return not is_passed(judge(case, interpreted_agent(name, folder)))


def try_all(mutants: list[Mutant], agents: dict[bool, list[str]], until: float) -> tuple[int, int]:
    """How many were caught, and how many there was no time for."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        # A case that fails without any mutant catches nothing.
        cases = sorted({mutant["caught_by"] for mutant in mutants})
        passed = pool.map(lambda case: is_passed(judge(case, agents[is_of_daemon(case)])), cases)
        broken = [case for case, is_good in zip(cases, passed, strict=True) if not is_good]
        if broken:
            raise SystemExit(f"these cases fail without a mutant: {', '.join(broken)}")

        def attempt(mutant: Mutant) -> bool | None:
            return is_caught(mutant, agents) if time.monotonic() < until else None

        caught = late = 0
        for mutant, outcome in zip(mutants, pool.map(attempt, mutants), strict=True):
            word = {True: "caught", False: "SURVIVED", None: "NO TIME"}[outcome]
            caught, late = caught + (outcome is True), late + (outcome is None)
            sys.stdout.write(f"{word:8}  {mutant['name']} ({mutant['caught_by']})\n")
            sys.stdout.flush()
    return caught, late


def main() -> int:
    """Runs those that were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=LANGUAGES)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    until = time.monotonic() + asked.minutes * 60
    mutants: list[Mutant] = tomllib.loads((pathlib.Path(__file__).parent / "mutants.toml").read_text())["mutant"]
    total = caught = late = 0
    for only in asked.only or LANGUAGES:
        own = [mutant for mutant in mutants if language(mutant) == only]
        chosen = [mutant for mutant in own if not asked.names or mutant["name"] in asked.names]
        if not chosen:
            continue
        agents = subjects(own, only)
        got, missed = try_all(chosen, agents, until)
        total, caught, late = total + len(chosen), caught + got, late + missed
    sys.stdout.write(f"{caught} of {total} caught{f', no time for {late}' if late else ''}\n")
    return 0 if total and caught == total else 1


if __name__ == "__main__":
    sys.exit(main())
