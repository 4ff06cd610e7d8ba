"""What the papers say is so: error codes as in SPEC.md, every function documented, symbols as listed, limits of our house.

    python3 check_papers.py LIBRARY.so LIBRARY.a
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

SDK = pathlib.Path(__file__).resolve().parents[1]
SPEC = SDK.parent / "plugin-protocol" / "SPEC.md"
TAGS = ("Ownership:", "Blocking:", "Threads:", "Limits:", "Since:")
LINES_MAX = 600
FUNCTION_LINES_MAX = 70


def codes() -> list[str]:
    rows = re.findall(r"^\| (\d{3}) \| ([A-Z_]+) \| (.*) \|$", SPEC.read_text(), re.MULTILINE)
    source = re.sub(r'"\s*\n\s*"', "", (SDK / "src" / "errors.c").read_text())
    ours = re.findall(r'\{(\d{3}), "([A-Z_]+)", "[^"]+",\s*"([^"]*)"\}', source)
    header = (SDK / "include" / "p2pos" / "error.h").read_text()
    named = re.findall(r"P2POS_ERR_([A-Z_]+) = (\d{3})", header)
    faults = [] if rows == ours else [f"errors.c differs from SPEC.md: {set(rows) ^ set(ours)}"]
    return faults + ([] if [(name, code) for code, name, _ in rows] == named else ["error.h differs from SPEC.md"])


def functions() -> dict[str, str]:
    """Every public function and the comment before it."""
    found = {}
    for file in ("error.h", "p2pos.h"):
        text = (SDK / "include" / "p2pos" / file).read_text()
        for comment, name in re.findall(r"/\*((?:(?!\*/).)*)\*/\s*P2POS_API [^;(]*?(p2pos_\w+)\(", text, re.DOTALL):
            found[name] = comment
    return found


def documented() -> list[str]:
    told = functions()
    text = "".join((SDK / "include" / "p2pos" / file).read_text() for file in ("error.h", "p2pos.h"))
    declared = set(re.findall(r"^P2POS_API [^;(]*?(p2pos_\w+)\(", text, re.MULTILINE))
    faults = [f"{name} has no comment" for name in declared - told.keys()]
    return faults + [f"{name} does not say {tag}" for name, comment in told.items() for tag in TAGS if tag not in comment]


def symbols(shared: str, static: str) -> list[str]:
    wanted = (SDK / "tests" / "symbols.txt").read_text().split()
    dynamic = subprocess.run(["nm", "-D", "--defined-only", shared], capture_output=True, text=True, check=True).stdout
    exported = sorted(line.split()[2] for line in dynamic.splitlines())
    faults = [] if exported == wanted else [f"symbols.txt and the library differ: {sorted(set(wanted) ^ set(exported))}"]
    if set(wanted) != functions().keys():
        faults.append(f"symbols.txt and the header differ: {sorted(set(wanted) ^ functions().keys())}")
    inner = subprocess.run(["nm", "--defined-only", "--extern-only", static], capture_output=True, text=True, check=True).stdout
    names = [line.split()[2] for line in inner.splitlines() if len(line.split()) == 3]
    faults += [f"{static} defines {name}" for name in names if not re.match(r"(p2pos_|__odr_asan)", name)]
    return faults


def soname(shared: str) -> list[str]:
    told = subprocess.run(["readelf", "-d", shared], capture_output=True, text=True, check=True).stdout
    return [] if "Library soname: [libp2pos.so.1]" in told else ["the soname is not libp2pos.so.1"]


def sizes() -> list[str]:
    faults = []
    for file in [*SDK.glob("src/*.[ch]"), *SDK.glob("src/pb/field.*"), *SDK.glob("include/p2pos/*.h"), *SDK.glob("examples/*.c")]:
        lines = file.read_text().splitlines()
        if len(lines) > LINES_MAX:
            faults.append(f"{file.name} has {len(lines)} lines, the limit is {LINES_MAX}")
        if not lines[0].startswith("/*"):
            faults.append(f"{file.name} does not begin with what it is")
        start = None
        for at, line in enumerate(lines):
            if line.endswith(") {") and not line.startswith("    if"):
                start = at if start is None else start
            elif file.suffix == ".c" and line == "}" and start is not None:
                if at - start > FUNCTION_LINES_MAX:
                    faults.append(f"{file.name}:{start + 1}: a function of {at - start} lines, the limit is {FUNCTION_LINES_MAX}")
                start = None
    return faults


def main() -> int:
    shared, static = sys.argv[1:]
    faults = codes() + documented() + symbols(shared, static) + soname(shared) + sizes()
    for fault in faults:
        print(f"error: {fault}")
    print(f"{len(functions())} functions looked at")
    return 1 if faults or len(functions()) < 40 else 0


if __name__ == "__main__":
    sys.exit(main())
