"""Breaks one rule at a time in a copy of an SDK, and sees that the named case of the kit catches it: `run.py [--fast] [NAME...]`.

`--fast` leaves out the mutants that need a compiler. Every mutant is applied to a copy; the checkout is never touched. Needs the kit in
target/debug (or KIT), and says at the end how many were caught; a survivor is a failure.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[3]
KIT = os.environ.get("KIT", str(ROOT / "target/debug/p2pos-conformance"))
PYTHON, RUST = "sdk-python/src", "plugin-protocol"
AGENTS = ("agent_aio.py", "agent_sync.py")
# Examples in languages that need no compiler either: what starts the agent, which lies in the plugin's folder.
SCRIPTS = {
    "plugins/echo-node": ("node", "conformance/agent.mjs"),
    "plugins/echo-tcl": ("tclsh", "conformance/agent.tcl"),
}


def judge(case: str, command: list[str]) -> bool:
    """True if the case passes."""
    words = [KIT, "plugin", "--tcp", "--only", case, "--", *command]
    return subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0


def agent(place: pathlib.Path, name: str) -> list[str]:
    """The Python agent on this copy of the SDK."""
    script = str(ROOT / "sdk-python/conformance" / name)
    return ["env", f"PYTHONPATH={place / PYTHON}", "PYTHONDONTWRITEBYTECODE=1", "python3", script]


def rust(place: pathlib.Path) -> list[str] | None:
    """The Rust agent, built on this copy of the workspace; None: it does not build."""
    words = ["cargo", "build", "-q", "--offline", "-p", "p2pos-conformance", "--example", "agent-rust"]
    target = ROOT / "target/mutants"
    done = subprocess.run(words, cwd=place, env=os.environ | {"CARGO_TARGET_DIR": str(target)}, check=False)
    return [str(target / "debug/examples/agent-rust")] if done.returncode == 0 else None


def folder_of(mutant: dict[str, str]) -> str | None:
    """The folder that is copied for a mutant of Python or of a script; None: it needs a compiler."""
    return next((folder for folder in (PYTHON, *SCRIPTS) if mutant["file"].startswith(folder)), None)


def scripted(place: pathlib.Path, folder: str) -> list[str]:
    """The agent that belongs to this folder of the copy."""
    if folder == PYTHON:
        return agent(place, AGENTS[0])
    program, script = SCRIPTS[folder]
    return [program, str(place / folder / script)]


def copy(place: pathlib.Path, mutant: dict[str, str]) -> None:
    """Applies a mutant to a fresh copy."""
    folder = folder_of(mutant)
    if folder is not None:
        shutil.copytree(ROOT / folder, place / folder)
    else:
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, files.split("\0")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    file = place / mutant["file"]
    text = file.read_text()
    if text.count(mutant["find"]) != 1:
        raise SystemExit(f"{mutant['name']}: its text stands {text.count(mutant['find'])} times in {mutant['file']}")
    file.write_text(text.replace(mutant["find"], mutant["replace"]))


def is_caught(mutant: dict[str, str]) -> bool:
    """Whether the named case fails on the mutant."""
    with tempfile.TemporaryDirectory(prefix="p2pos-mutant") as temporary:
        place = pathlib.Path(temporary)
        copy(place, mutant)
        folder = folder_of(mutant)
        command = rust(place) if folder is None else scripted(place, folder)
        if command is None:
            raise SystemExit(f"{mutant['name']} does not build")
        return not judge(mutant["caught_by"], command)


def main() -> int:
    """Runs those that were asked for."""
    words = sys.argv[1:]
    is_fast = "--fast" in words
    names = [word for word in words if not word.startswith("--")]
    mutants = tomllib.loads((pathlib.Path(__file__).parent / "mutants.toml").read_text())["mutant"]
    chosen = [one for one in mutants if (not names or one["name"] in names)]
    if is_fast:
        chosen = [one for one in chosen if folder_of(one) is not None]
    # A case that fails without any mutant catches nothing.
    for folder, case in sorted({(folder_of(one) or PYTHON, one["caught_by"]) for one in chosen}):
        if not judge(case, scripted(ROOT, folder)):
            raise SystemExit(f"{case} fails on {folder} as it is")
    survivors = 0
    for mutant in chosen:
        caught = is_caught(mutant)
        survivors += not caught
        sys.stdout.write(f"{'caught' if caught else 'SURVIVED'}  {mutant['name']} ({mutant['caught_by']})\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - survivors} of {len(chosen)} caught\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
