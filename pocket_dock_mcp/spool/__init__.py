"""What programs printed, kept on the host: bounded, and readable afterwards by range, lines and search.

core     Spool: one stream of one run, by offset; `append` is for the event loop, the rest for any thread
budget   SpoolBudget: how much may be kept in all; FairBudget: of several who share
storage  the bytes: in memory, then in a file without a name
lines    a spool by lines; may wait for a disk
search   grep; may wait for a disk, and has a deadline
shown    the lines that a search shows
pattern  PURE  what of a regular expression is let in, and how
text     PURE  pieces of a stream as text
"""

from pocket_dock_mcp.spool.budget import FairBudget, SpoolBudget
from pocket_dock_mcp.spool.core import CAP, Extent, Spool
from pocket_dock_mcp.spool.lines import Excerpt, read_lines, read_range, tail_lines
from pocket_dock_mcp.spool.search import Matches, grep
from pocket_dock_mcp.spool.shown import Line
from pocket_dock_mcp.spool.storage import OutputGoneError

__all__ = [
    "CAP",
    "Excerpt",
    "Extent",
    "FairBudget",
    "Line",
    "Matches",
    "OutputGoneError",
    "Spool",
    "SpoolBudget",
    "grep",
    "read_lines",
    "read_range",
    "tail_lines",
]
