"""What is reported of values and figures. Libraries are stand-ins, as far as any are needed."""

from __future__ import annotations

import random
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.agent.inside import values
from tests.interpreters import Session, run_once, session

# -- one value ------------------------------------------------------------------------------------


def some_value(random_: random.Random, depth: int = 0) -> Any:
    """Return a random nest of builtin values."""
    kinds = [int, float, str, bytes, bool, type(None)]
    kinds += [list, tuple, set, frozenset, dict] if depth < 4 else []
    kind = random_.choice(kinds)
    count = random_.randrange(5)
    if kind in (list, tuple):
        return kind(some_value(random_, depth + 1) for _ in range(count))
    if kind in (set, frozenset):
        return kind(random_.randrange(1000) for _ in range(count))
    if kind is dict:
        return {random_.randrange(1000): some_value(random_, depth + 1) for _ in range(count)}
    if kind is str:
        return random_.choice(["", "it's", 'say "x"', "\n\t\\", "ä€😀\ud800"]) * count
    return {int: -count, float: count / 3, bytes: b"\0'\"" * count, bool: True}.get(kind)


@pytest.mark.parametrize("seed", range(200))
def test_what_fits_looks_as_repr_has_it(seed: int) -> None:
    value = some_value(random.Random(seed))

    assert values.bounded_repr(value) == (repr(value), False)


def test_a_container_in_itself_looks_as_repr_has_it() -> None:
    nest: list[Any] = [1]
    nest += [nest, {"x": nest}, (nest,)]

    assert values.bounded_repr(nest) == (repr(nest), False)


@pytest.mark.parametrize(
    "value",
    [
        list(range(10_000)),
        tuple(range(10_000)),
        set(range(10_000)),
        dict.fromkeys(range(10_000)),
        "x" * 10_000,
        b"\0" * 10_000,
        ["\0" * 10_000] * 3,
        {"k" * 9000: "v" * 9000},
        [[[["x" * 9000]]]] * 2000,
        bytearray(10_000),
        10**10_000,
        "\n" * 8000,
        [list(range(1000))] * 1000,
        range,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_too_long_is_head_and_tail(value: Any) -> None:
    text, cut = values.bounded_repr(value)

    assert len(text) <= values.ROOM
    assert cut is (value is not range)
    if isinstance(value, (list, tuple, str, bytes)):
        assert text[:3] == repr(value)[:3]
        assert text[-5:] == repr(value)[-5:]


def test_the_edges_of_a_long_list_are_whole() -> None:
    text, _ = values.bounded_repr(list(range(100_000)))

    assert text.startswith("[0, 1, 2, 3, ")
    assert text.endswith(", 99998, 99999]")
    assert "more>" in text


def test_a_value_of_exactly_the_room_is_whole() -> None:
    assert values.bounded_repr("x" * (values.ROOM - 2)) == (repr("x" * (values.ROOM - 2)), False)
    assert values.bounded_repr(["x" * (values.ROOM - 4)])[1] is False


@pytest.mark.parametrize(
    "value",
    [list(range(10_000_000)), {0: "x" * 100_000_000}, [b"x" * 100_000_000]],
    ids=["list", "dict", "bytes"],
)
def test_a_huge_value_takes_no_time(value: Any) -> None:
    began = time.process_time()

    values.bounded_repr(value)

    assert time.process_time() - began < 0.2


def test_deep_nests_end() -> None:
    nest: Any = []
    for _ in range(100_000):
        nest = [nest]

    assert values.bounded_repr(nest)[1]
    while nest:
        nest = nest.pop()


@pytest.fixture(scope="module")
def cells() -> Any:
    with session() as made:
        yield made


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("1 / 0", "<repr failed: ZeroDivisionError: division by zero>"),
        ("return 1", "<repr failed: TypeError: __repr__ returned non-string (type int)>"),
        ("raise SystemExit(3)", "<repr failed: SystemExit: 3>"),
        ("return repr(self)", "<repr failed: RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_a_repr_that_fails_is_told_and_ends_nothing(cells: Session, body: str, text: str) -> None:
    for nested in ("A()", "[A()]"):
        ran = cells.cell(f"class A:\n    def __repr__(self): {body}\n{nested}")

        assert (ran.status, ran.err) == (0, "")
        assert (ran.result or "").startswith(text)


def test_a_value_that_answers_to_everything_is_harmless(cells: Session) -> None:
    ran = cells.cell(
        "class Any:\n    def __getattr__(self, name): return Any()\n"
        "    def __call__(self, *a): return Any()\n"
        "    def __repr__(self): return 'any'\nAny()"
    )

    assert (ran.status, ran.result, ran.of("image"), ran.of("note")) == (0, "any", [], [])


def test_nothing_is_imported_for_a_value() -> None:
    ran = run_once(
        "import sys, atexit\nbefore = set(sys.modules)\n"
        "atexit.register(lambda: print(set(sys.modules) - before))\n5"
    )

    assert ran.out == "set()\n"


# -- pictures -------------------------------------------------------------------------------------


def png(width: int, height: int, size: int = 0) -> bytes:
    """Return a PNG of about that many bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"tEXt", b"x" * size)
        + chunk(b"IDAT", zlib.compress(b"\0" * (width + 1) * height))
        + chunk(b"IEND", b"")
    )


PYPLOT = """
import logging, sys, types, warnings
from matplotlib.figure import Figure
figures = {}
def figure(number=None):
    if number is None: number = max(figures, default=0) + 1
    return figures.setdefault(number, Figure())
def get_fignums(): return sorted(figures)
def close(figure):
    for number in [n for n in figures if figures[n] is figure]: del figures[number]
"""
FIGURE = """
import logging, warnings
class Figure:
    dpi, stale, axes, png, error = 100, True, [], PNG, None
    def get_size_inches(self): return (6.4, 4.8)
    def savefig(self, file, format, dpi):
        warnings.warn('rendering')
        logging.getLogger('matplotlib').error('rendering')
        if self.error: raise self.error
        file.write(self.png)
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a directory with a stand-in for matplotlib."""
    path: Path = tmp_path_factory.mktemp("libraries")
    (path / "matplotlib").mkdir()
    (path / "matplotlib" / "__init__.py").write_text(
        "import contextlib\ndef rc_context(rc): return contextlib.nullcontext()\n"
    )
    (path / "matplotlib" / "pyplot.py").write_text(PYPLOT)
    (path / "matplotlib" / "figure.py").write_text(FIGURE.replace("PNG", repr(png(640, 480))))
    return str(path)


def test_open_figures_are_sent_in_order_at_the_end(libraries: str) -> None:
    ran = run_once(
        "import matplotlib.pyplot as plt\nplt.figure(2).stale = False\nplt.figure(1)\n'value'",
        env={"PYTHONPATH": libraries},
    )

    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert ran.result == "'value'"
    image = {"what": "image", "mime": "image/png", "width": 640, "height": 480}
    assert ran.of("image") == [
        {**image, "name": "figure 1", "drawn": False},
        {**image, "name": "figure 2", "drawn": True},
    ]
    assert [data for header, data in ran.blocks if header["what"] == "image"] == [png(640, 480)] * 2


@pytest.mark.parametrize("end", ["1 / 0", "raise SystemExit(3)", "import sys; sys.exit()"])
def test_figures_of_a_program_that_fails_are_sent_too(libraries: str, end: str) -> None:
    ran = run_once(f"import matplotlib.pyplot as plt\nplt.figure()\n{end}", env={"PYTHONPATH": libraries})

    assert len(ran.of("image")) == 1


def test_a_figure_is_drawn_if_what_is_in_it_has_been(libraries: str) -> None:
    ran = run_once(
        "import matplotlib.pyplot as plt\nfrom types import SimpleNamespace as N\n"
        "def part(stale, **more): return N(stale=stale, get_visible=lambda: True, **more)\n"
        "def axes(*parts): return [N(get_children=lambda: parts)]\n"
        "plt.figure().axes = axes(part(False), part(True, get_text=lambda: ''))\n"
        "plt.figure().axes = axes(part(False), part(True, get_text=lambda: 'new title'))\n"
        "plt.figure().axes = axes(part(True))\n",
        env={"PYTHONPATH": libraries},
    )

    assert [image["drawn"] for image in ran.of("image")] == [True, False, False]


def test_in_a_session_a_figure_is_sent_once_and_again_as_a_value(libraries: str) -> None:
    with session(env={"PYTHONPATH": libraries}) as cells:
        assert len(cells.cell("import matplotlib.pyplot as plt\nf = plt.figure()\nf").of("image")) == 1
        assert cells.cell("1").of("image") == []
        assert [image["name"] for image in cells.cell("f").of("image")] == ["result"]


def test_a_figure_that_cannot_be_rendered_is_a_note(libraries: str) -> None:
    ran = run_once(
        "import matplotlib.pyplot as plt\nplt.figure().error = ValueError('no such font')\nplt.figure()",
        env={"PYTHONPATH": libraries},
    )

    assert (ran.status, ran.err) == (0, "")
    assert ran.of("note") == [
        {"what": "note", "text": "figure 1 could not be shown: ValueError: no such font"}
    ]
    assert [image["name"] for image in ran.of("image")] == ["figure 2"]


@pytest.mark.parametrize(("size", "sent"), [(0, 16), (190 * 1024, 10)])
def test_pictures_beyond_the_bounds_are_counted(libraries: str, size: int, sent: int) -> None:
    """Sixteen, or two mebibytes. In a session the others do not come back with the next cell."""
    with session(env={"PYTHONPATH": libraries}) as cells:
        cells.cell("import matplotlib.pyplot as plt, matplotlib.figure as f")
        cells.cell(f"f.Figure.png = {png(640, 480, size)!r}")
        ran = cells.cell("for _ in range(20): plt.figure()")

        assert len(ran.of("image")) == sent
        assert ran.of("images_left") == [{"what": "images_left", "count": 20 - sent}]
        assert cells.cell("1").of("image") == []


@pytest.mark.parametrize(
    ("expression", "note"),
    [
        ("png", None),
        ("(png, {})", None),
        ("b'GIF89a'", "it is not PNG"),
        ("'text'", "_repr_png_ returned no bytes"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("large", "it is too large ("),
        ("wide", "it is too large ("),
    ],
)
def test_a_value_may_say_how_it_looks(expression: str, note: str | None) -> None:
    ran = run_once(
        f"png, large, wide = {png(3, 4)!r}, {png(3, 4, 300_000)!r}, {png(2000, 2)!r}\n"
        f"class A:\n    def _repr_png_(self): return {expression}\nA()"
    )

    assert ran.status == 0
    assert (ran.result or "").startswith("<__main__.A object")
    if note is None:
        assert [(image["width"], image["height"]) for image in ran.of("image")] == [(3, 4)]
    else:
        assert ran.of("image") == []
        assert f"result could not be shown: {note}" in ran.of("note")[0]["text"]


def test_a_value_may_say_that_it_has_no_looks() -> None:
    ran = run_once("class A:\n    def _repr_png_(self): return None\nA()")

    assert [header["what"] for header, _ in ran.blocks] == ["result"]


def test_a_library_that_is_half_imported_is_no_trouble() -> None:
    ran = run_once(
        "import sys, types\n"
        "names = 'pandas polars PIL.Image matplotlib.pyplot matplotlib.figure numpy.random'.split()\n"
        "for name in names:\n    sys.modules[name] = types.ModuleType(name)\n5"
    )

    assert (ran.status, ran.result, ran.err) == (0, "5", "")
