"""Errors of engines in words."""

from __future__ import annotations

from typing import get_args

import pytest

from pocket_dock_mcp.engine.translate import Verb, translate
from pocket_dock_mcp.errors import ContainerGoneError, ImageNotFoundError


@pytest.mark.parametrize("verb", [v for v in get_args(Verb) if v not in ("pull", "build", "import", "load")])
def test_every_failure_is_a_sentence(verb: Verb) -> None:
    failed = translate(verb, 500, "reasons", "it").message
    assert failed.startswith("The engine failed to ")
    assert failed.endswith(" 'it' (HTTP 500): reasons")
    assert "_" not in failed
    assert translate(verb, 409, "reasons", "it").message.startswith("The engine refused to ")


def test_what_is_done_to_an_image_is_not_said_of_a_container() -> None:
    assert (
        translate("image", 500, "x", "it").message
        == "The engine failed to look at the image 'it' (HTTP 500): x"
    )
    assert isinstance(translate("remove_image", 404, "no such image", "it"), ImageNotFoundError)
    assert isinstance(translate("remove", 404, "no such container", "it"), ContainerGoneError)
