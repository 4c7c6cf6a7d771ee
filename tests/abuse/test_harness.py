"""The suite's own parts: cases that are written wrongly are told so, and escapes are seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.abuse.__main__ import main
from tests.abuse.canaries import Canaries
from tests.abuse.case import CaseError, Control, Expect, Written, load, load_all
from tests.abuse.checks import faked, malformed, wrong
from tests.abuse.covered import missing
from tests.abuse.runner import reasons_of
from tests.abuse.server import Reply
from tests.engines import ENGINES_VARIABLE

GOOD = """
title: t
attack: a
expected: e
steps: [{tool: run_code, with: {code: "{{file:attack.py}} {{x * 3}} {{port}}"}}]
control: {none: there is none}
"""


def written(folder: Path, text: str) -> Written:
    (folder / "attack.py").touch()
    (folder / "case.yaml").write_text(text)
    return load(folder)


def test_places_are_filled_with_files_repetitions_and_values(tmp_path: Path) -> None:
    case = written(tmp_path, GOOD)
    (tmp_path / "attack.py").write_text("port is {{port}}")

    assert case.filled(case.case.steps[0].arguments, {"port": 7}) == {"code": "port is 7 xxx 7"}
    assert case.filled("{{port}}", {"port": 7}) == 7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("title: t", ""), "title: Field required"),
        (("tool: run_code", "tol: run_code"), "steps.0.tool: Field required"),
        (("attack: a", "attack: a\nfoo: 1"), "foo: Extra inputs"),
        (("steps:", "driver: d.py\nsteps:"), "one of steps, driver, tests and not_run"),
        (("{none: there is none}", "{}"), "one of weaken"),
        (("{none: there is none}", "{fake: [{stdou: x}]}"), "stdou"),
        (("attack: a", "attack: a\nspares: {O9: x}"), "no oracle O9"),
        (("title: t", "title: ["), "is no YAML"),
        (("{none: there is none}", "{weaken: [nosuch]}"), r"control\.weaken: .*no weakening nosuch"),
        (("{none: there is none}", "{variant: {stepz: []}}"), r"control\.variant\.stepz: Extra inputs"),
        (
            ("{none: there is none}", "{variant: {steps: [{tool: x, with: {a: '{{b}}'}}]}}"),
            r"control\.variant\.steps\.0\.with\.a: nothing is known .* {{b}}",
        ),
        (("{none: there is none}", "{root: nope.py}"), r"control\.root: .*no file 'nope\.py'"),
        (("{none: there is none}", "{fake: [{}, {}]}"), r"control\.fake: it has 2 replies for 1 steps"),
        (("{none: there is none}", "{none: x, detects: (}"), r"control\.detects: .*no regular expression"),
        (("{{file:attack.py}}", "{{file:nope.py}}"), r"steps\.0\.with\.code: .*no file 'nope\.py'"),
        (("{{port}}", "{{prt}}"), r"steps\.0\.with\.code: nothing is known .* {{prt}}"),
        (("run_code,", "run_code, expect: {matches: ['(']},"), r"steps\.0\.expect\.matches: .*no regular"),
        (("run_code,", "run_code, expect: {fields: {a: {mim: 1}}},"), r"expect\.fields: .*no rule mim"),
        (("attack: a", "attack: a\nengines: [dokcer]"), "engines: there is no engine dokcer"),
        ((GOOD[GOOD.index("steps") : GOOD.index("control")], "driver: nope\n"), "driver: .*no driver 'nope'"),
        (
            (GOOD[GOOD.index("steps") : GOOD.index("control")], "driver: attack.py\n"),
            "driver: there is no function drive in",
        ),
    ],
)
def test_what_is_wrong_with_a_case_is_said(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    with pytest.raises(CaseError, match=reason):
        written(tmp_path, GOOD.replace(*change))


def test_a_directory_without_a_case_and_a_file_that_is_missing_are_said(tmp_path: Path) -> None:
    (tmp_path / "X1").mkdir()
    with pytest.raises(CaseError, match=r"X1: there is no case\.yaml"):
        load_all(tmp_path)
    case = written(tmp_path / "X1", GOOD)
    (tmp_path / "X1" / "attack.py").unlink()
    with pytest.raises(CaseError, match=r"X1: there is no file 'attack\.py'"):
        case.filled(case.case.steps[0].arguments, {})
    with pytest.raises(CaseError, match=r"nothing is known by the name {{prt}}. Known: port"):
        case.filled("{{prt}}", {"port": 1})


def test_a_case_that_is_written_wrongly_and_engines_that_nobody_named_end_it_before_anything_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENGINES_VARIABLE, raising=False)
    (tmp_path / "X1").mkdir()
    (tmp_path / "X1" / "case.yaml").write_text(GOOD)
    dead = "dead=unix:///nonexistent.sock"

    folder = ("--cases", str(tmp_path))
    for said, reason in {
        (*folder, "--engine", "podman"): "Nobody said where",
        folder: "need container engines",
        (*folder, "--engine", "fake"): "need a real engine",
        (*folder, "--engine", dead): "steps.0.with.code",
        ("--engine", dead, "--cases", str(tmp_path / "X1" / "X2")): "There is no directory",
    }.items():
        assert main(said) == 2
        told = capsys.readouterr()
        assert reason in told.err
        assert told.out == ""
        assert told.err.count("\n") == 1


def test_an_engine_that_is_dead_is_named_with_each_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "X1").mkdir()
    written(tmp_path / "X1", GOOD)

    assert main(["--cases", str(tmp_path), "--engine", "dead=unix:///nonexistent.sock"]) == 1
    assert "- X1 case on dead: engine dead does not answer: " in capsys.readouterr().out


def test_a_group_of_exceptions_is_told_by_what_it_consists_of() -> None:
    class SeveralError(Exception):
        exceptions = (ValueError("a"), KeyError("b"))

    assert reasons_of(SeveralError("several")) == ["ValueError: a", "KeyError: 'b'"]
    assert reasons_of(OSError("c")) == ["OSError: c"]


def reply(**fields: object) -> Reply:
    return Reply(False, "told", {"status": "ok", "stdout": "hello\n", **fields})


@pytest.mark.parametrize(
    "expect",
    [
        Expect(status=["timeout"]),
        Expect(contains=["bye"]),
        Expect(lacks=["hello"]),
        Expect(matches=["^x"]),
        Expect(error="refused"),
        Expect(fields={"stdout": "x"}),
        Expect(fields={"usage.wall_s": {"max": 1}}),
        Expect(fields={"size": {"min": 5}}),
    ],
)
def test_a_reply_that_is_not_as_expected_is_wrong(expect: Expect) -> None:
    assert list(wrong(reply(size=4, usage={"wall_s": 2}), expect))


def test_a_reply_that_is_as_expected_is_right() -> None:
    expect = Expect(
        status=["ok", "nonzero"],
        contains=["hell"],
        matches=["^hello$"],
        fields={"size": {"min": 4, "in": [4]}},
    )

    assert not list(wrong(reply(size=4), expect))
    assert not list(wrong(Reply(True, "it is refused", {}), Expect(error="refused")))
    assert not list(wrong(Reply(True, "anything", {}), Expect(status=["ok"], may_fail=True)))
    assert list(wrong(Reply(True, "anything", {}), Expect(error="refused", may_fail=True)))


def test_a_line_that_begins_with_escaped_is_an_escape_wherever_it_is() -> None:
    assert list(wrong(reply(stderr="x\nESCAPED: y\n"), Expect()))
    assert not list(wrong(reply(stderr="print('ESCAPED')\n"), Expect()))
    assert not list(wrong(reply(stderr="ESCAPED\n"), Expect(), raw=True))


def test_replies_of_another_shape_and_large_ones_are_malformed() -> None:
    schema = {"type": "object", "required": ["run_id"], "properties": {"run_id": {"type": "string"}}}

    assert list(malformed(reply(), schema))
    assert list(malformed(reply(run_id=1), schema))
    assert not list(malformed(reply(run_id="r"), schema))
    assert list(malformed(Reply(True, "x" * 5000, {}), {}))
    assert list(malformed(Reply(False, "", {"run_id": "r"}, wire_bytes=1 << 20), schema))


def test_made_up_replies_have_what_a_control_says() -> None:
    (fake,) = Control.model_validate({"fake": [{"stdout": "x", "fields": {"a.b": 1}}]}).fake or []

    assert faked(fake).structured == {"status": "ok", "stdout": "x", "stderr": "", "a": {"b": 1}}


def test_tests_that_cover_cases_are_there() -> None:
    cases = [written.case for written in load_all()]

    assert list(missing([node for case in cases for node in (*case.tests, *case.control.tests)])) == []
    assert list(missing(["tests/abuse/test_harness.py::test_nothing", "tests/nothing.py::x", "x"])) == [
        "there is no test test_nothing in tests/abuse/test_harness.py",
        "there is no test x in tests/nothing.py",
        "'x' is no tests/FILE.py::NAME",
    ]


def test_canaries_see_a_file_that_was_touched(tmp_path: Path) -> None:
    canaries = Canaries(tmp_path)
    try:
        assert canaries.violations() == []
        canaries.flag.write_text("gone")
        assert canaries.violations() == ["files of the host were changed"]
        assert canaries.violations() == []
    finally:
        canaries.close()
