"""The runs that a kept container's agent knows of, asked for and parsed as the word of somebody hostile."""

from __future__ import annotations

import json

from pocket_dock_mcp.agent.agent_process import CALL_DEADLINE, KeptRun, int_of
from pocket_dock_mcp.agent.link import AgentLink
from pocket_dock_mcp.errors import AgentProtocolError

MAX_PAGES = 256
"""Of the listing, before it is one without end."""
MAX_RUNS = 8192
"""In it: more than an agent keeps."""
MAX_REMEMBERED = 8 * 1024 * 1024
"""Bytes of JSON of all that is said of them: each remembers a few hundred, and 4 KiB more at most."""
STREAMS = 3


async def kept_runs(link: AgentLink) -> list[KeptRun]:
    """Return all runs that the agent lists, by ascending number.

    Raises:
        AgentProtocolError: they make no sense, or are too many.
        AgentTimeoutError, StreamLostError: the link is dead.
    """
    found: list[KeptRun] = []
    size = 0
    for _ in range(MAX_PAGES):
        after = found[-1].id if found else 0
        said = (await link.call("list_runs", deadline=CALL_DEADLINE, after=after)).get("runs")
        if not isinstance(said, list):
            break
        if not said:
            return found
        size += _size(said)
        if size > MAX_REMEMBERED or len(found) + len(said) > MAX_RUNS:
            break
        for one in said:
            found.append(_kept_run(one, after))
            after = found[-1].id
    message = "The program in the container sent runs that are none."
    raise AgentProtocolError(message)


async def earlier_runs(link: AgentLink) -> list[KeptRun]:
    """Likewise, for a link that has begun none: under a number of its own there can be none.

    Raises: as `kept_runs`.
    """
    found = await kept_runs(link)
    if any(link.owns(run.id) for run in found):
        message = "The program in the container sent a run under a number that is still to be given."
        raise AgentProtocolError(message)
    return found


def _size(said: object) -> int:
    """Return how many bytes it has as JSON; for what is nested too deeply, more than may be."""
    try:
        return len(json.dumps(said))
    except RecursionError:
        return MAX_REMEMBERED + 1


def _kept_run(said: object, after: int) -> KeptRun:
    if isinstance(said, dict) and isinstance(missing := said.get("missing"), list):
        counts = [count for count in missing if type(count) is int and count >= 0]
        number = int_of(said, "id")
        if number > after and len(counts) == len(missing) == STREAMS:
            lost = (counts[0], counts[1], counts[2])
            ended, heard_of = said.get("ended") is True, said.get("heard") is True
            attended = said.get("attended") is True
            return KeptRun(number, said.get("meta"), ended, ended and heard_of, lost, attended)
    message = "The program in the container sent a run that is none."
    raise AgentProtocolError(message)
