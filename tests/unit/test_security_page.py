"""SECURITY.md promises what cases try to break."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMISES = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## What we promise")[2]
PROMISES = PROMISES.partition("## What we do not promise")[0]


def test_every_promise_has_cases_and_every_case_is_there() -> None:
    promises = re.findall(
        r"^\d+\. \*\*(.*?)\*\*(.*?)(?=^\d+\. |\Z|^Fuzzing)", PROMISES, re.MULTILINE | re.DOTALL
    )
    assert len(promises) == 12
    for title, text in promises:
        cases = re.search(r"\*((?:[A-L]\d+X? ?|\n +)+)\*", text)
        assert cases is not None, title
        for case in cases[1].split():
            assert (ROOT / "tests" / "abuse" / "cases" / case / "case.yaml").is_file(), (title, case)
