"""A container engine in memory, for tests of whatever works with an `Engine`: this package's and yours.

`FakeEngine` keeps the contract of the port: one body of tests (``tests/contract``) runs over it and over
real Podman and Docker. Nothing runs in its containers; what a program does is scripted::

    engine = FakeEngine()
    engine.script("make test", stdout="3 passed", exit_code=0)
    engine.script("import time; time.sleep(9)", hang=True)  # a Python source, by its text
    ...  # launch a container of `FakeEngine.IMAGE` and run "make test" in it
    await engine.aclose()

Without a script, ``cat``, ``echo``, ``exit``, ``false``, ``sleep`` and ``true`` do what they say, and any
other command says that there is no script for it and exits with 127. Files are real enough: permissions,
links, special files, and ``/proc``, which is refused.

What can go wrong with an engine can be arranged: `FakeEngine.fail` and `FakeEngine.delay` for a verb,
`FakeEngine.go_down` for the whole, `FakeEngine.cut_next_stream` for a connection, ``lose_stream`` and
``raw`` of a script for the moment when a program runs, and `AgentFaults` for an agent that is silent,
speaks gibberish, or sits in a container whose limits do not hold.

Nothing waits for real time, except for a time limit of a run and for ``sleep``.
"""

from pocket_dock_mcp.testing.agent import AgentFaults
from pocket_dock_mcp.testing.container import FakeContainer
from pocket_dock_mcp.testing.engine import FakeEngine
from pocket_dock_mcp.testing.filetree import FileTree, Node
from pocket_dock_mcp.testing.images import FakeImage
from pocket_dock_mcp.testing.programs import Process, Program, Script
from pocket_dock_mcp.testing.relays import FakeSocket

__all__ = [
    "AgentFaults",
    "FakeContainer",
    "FakeEngine",
    "FakeImage",
    "FakeSocket",
    "FileTree",
    "Node",
    "Process",
    "Program",
    "Script",
]
