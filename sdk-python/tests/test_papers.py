"""The codes are the same in SPEC.md, in the SDK and in the Rust crate; handshake proofs have known answers."""

from __future__ import annotations

import re

from vectors import PROTOCOL, cases_of

from p2pos import Code, errors, hint_of
from p2pos.handshake import proofs


def test_the_codes_in_the_spec_are_the_sdks() -> None:
    spec = (PROTOCOL / "SPEC.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) \| ([A-Z_]+) \| (.*) \|$", spec, re.MULTILINE)
    assert [(int(code), name, hint) for code, name, hint in rows] == [(c.value, c.name, hint_of(c)) for c in Code]


def test_the_codes_of_the_rust_crate_are_the_sdks() -> None:
    source = (PROTOCOL / "src" / "code.rs").read_text(encoding="utf-8")
    rows = re.findall(r'^    (\d{3}) ([A-Z_]+) "(.*)"$', source, re.MULTILINE)
    assert [(int(code), name, hint) for code, name, hint in rows] == [(c.value, c.name, hint_of(c)) for c in Code]


def test_every_code_has_an_exception_of_its_class() -> None:
    for code in Code:
        error = errors.error_of(code)
        assert error.code == code
        assert str(code.value) in str(error)
        assert isinstance(error, errors.P2posError)
    assert type(errors.error_of(499)) is errors.StreamReset
    assert type(errors.error_of(999)) is errors.RequestFailed


def test_the_tree_at_the_top_of_errors_is_the_true_one() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.P2posError)]
    assert sorted([*drawn, "P2posError"]) == sorted(kind.__name__ for kind in kinds)


def test_proofs_have_the_known_answers() -> None:
    for case in cases_of("handshake.json", "proofs"):
        secret, client, server = (bytes.fromhex(case[k]) for k in ("secret", "client_nonce", "server_nonce"))
        assert tuple(p.hex() for p in proofs(secret, client, server)) == (case["server_proof"], case["client_proof"])


def test_every_rule_of_the_spec_has_one_name() -> None:
    spec = (PROTOCOL / "SPEC.md").read_text(encoding="utf-8")
    defined = re.findall(r"^- \[(S-[A-Z]+-\d+)\]", spec, re.MULTILINE)
    assert len(defined) == len(set(defined))
    assert set(re.findall(r"\[(S-[A-Z]+-\d+)\]", spec)) == set(defined)
