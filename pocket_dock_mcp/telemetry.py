"""Spans and counters, through OpenTelemetry's API: nothing happens until somebody installs an SDK.

The MCP SDK makes a span of each message by the same API, so ours are below it: what a call did to the engine,
the sandbox that it made, the run that it started. None of them has code, output, paths or a sandbox's
whole id: an exporter may send them anywhere. A run's has its id, by which the audit log is searched.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace

from pocket_dock_mcp.errors import ContainerGoneError, ImageNotFoundError

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram, UpDownCounter

SCOPE = "pocket_dock_mcp"
NOT_THERE = (ContainerGoneError, ImageNotFoundError)
"""Answers, not errors: whoever removes something asks whether it is there, and so does whoever makes it."""

Attributes = dict[str, str | int | float | bool]


@functools.cache
def _tracer() -> trace.Tracer:
    return trace.get_tracer(SCOPE)


@contextmanager
def span(name: str, attributes: Attributes | None = None) -> Iterator[trace.Span]:
    """Make what is done in a block a span of its own, below the one that is current.

    Of an error it gets the kind, and not the message, which may quote anything.
    """
    with _tracer().start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            _fail(current, error)
            raise


def begin(name: str, attributes: Attributes) -> trace.Span:
    """Begin a span that outlives the call: it is below the current one, and its owner ends it."""
    return _tracer().start_span(name, attributes=attributes)


def _fail(current: trace.Span, error: BaseException) -> None:
    if current.is_recording():
        current.set_attribute("error.type", getattr(error, "code", type(error).__name__))
        current.set_status(trace.StatusCode.ERROR)


def short(identifier: str) -> str:
    """Return what tells one sandbox from another, and reaches none."""
    return hashlib.sha256(identifier.encode()).hexdigest()[:12]


class _Instruments:
    """What is counted. Made at the first count: importing the API of metrics costs some milliseconds."""

    def __init__(self) -> None:
        from opentelemetry import metrics

        meter = metrics.get_meter(SCOPE)
        self.created: Counter = meter.create_counter(
            "pocket_dock.sandboxes.created", "{sandbox}", "Sandboxes made: cold, warm, or a fork."
        )
        self.live: UpDownCounter = meter.create_up_down_counter(
            "pocket_dock.sandboxes.live", "{sandbox}", "Sandboxes that are there now."
        )
        self.refused: Counter = meter.create_counter(
            "pocket_dock.refused", "{call}", "Calls that were refused, by the reason."
        )
        self.runs: Counter = meter.create_counter(
            "pocket_dock.runs", "{run}", "Runs that have ended, by status and language."
        )
        self.run_duration: Histogram = meter.create_histogram(
            "pocket_dock.run.duration", "s", "Wall time of runs."
        )
        self.output: Counter = meter.create_counter("pocket_dock.output", "By", "Output of runs, all of it.")
        self.engine_duration: Histogram = meter.create_histogram(
            "pocket_dock.engine.duration", "s", "How long the engine took, by verb."
        )
        self.engine_errors: Counter = meter.create_counter(
            "pocket_dock.engine.errors",
            "{error}",
            "Errors of the engine, by verb and code; that something is not there is none.",
        )


instruments = functools.cache(_Instruments)
"""Return what is counted."""


def refused(reason: str) -> None:
    """Count a call that was refused."""
    instruments().refused.add(1, {"reason": reason})


@contextmanager
def engine_verb(verb: str) -> Iterator[None]:
    """Make a span of a request to the engine, and count it."""
    began = time.monotonic()
    attributes: Attributes = {"verb": verb}
    with span(f"engine.{verb}", {"pocket_dock.engine.verb": verb}):
        try:
            yield
        except NOT_THERE:
            raise
        except Exception as error:
            code = getattr(error, "code", type(error).__name__)
            instruments().engine_errors.add(1, {**attributes, "code": code})
            raise
        finally:
            instruments().engine_duration.record(time.monotonic() - began, attributes)
