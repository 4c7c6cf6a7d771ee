"""The official runner's server scenarios: which of them apply to this server, and why others do not.

A scenario applies if it is about what the server does. Most are about a tool, a prompt or a resource that a
server written for the runner has and no other: they test the library, and we use that as it is. A scenario
that this table does not know makes the tests fail, so that it is thought about when a new release of the
runner brings it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HANDSHAKE = "2025-11-25"
MODERN = "2026-07-28"
BOTH = (HANDSHAKE, MODERN)


@dataclass(frozen=True)
class Applies:
    """A scenario that has to pass."""

    versions: tuple[str, ...]
    """Revisions of the protocol under which it is run: all of ours that it is for."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Checks of it that cannot pass here, by their ids, and why."""


_ASKS_BACK = (
    "it is about a tool of the runner's own that asks the client for something; ours ask clients for nothing"
)

APPLY: dict[str, Applies] = {
    "server-initialize": Applies((HANDSHAKE,)),
    "server-session-lifecycle": Applies((HANDSHAKE,)),
    "server-stateless": Applies(
        (MODERN,),
        {
            "sep-2575-server-rejects-undeclared-capability": _ASKS_BACK,
            "sep-2575-missing-capability-http-400": _ASKS_BACK,
        },
    ),
    "ping": Applies((HANDSHAKE,)),
    "tools-list": Applies(BOTH),
    "tools-call-error": Applies(BOTH),
    "resources-list": Applies(BOTH),
    "prompts-list": Applies(BOTH),
    "server-sse-multiple-streams": Applies(BOTH),
    "dns-rebinding-protection": Applies(BOTH),
    "caching": Applies((MODERN,)),
    "http-header-validation": Applies((MODERN,)),
    "sep-2164-resource-not-found": Applies((MODERN,)),
    "input-required-result-unsupported-methods": Applies((MODERN,)),
}

_FIXTURE_TOOL = "calls a tool of the runner's own"
_FIXTURE_PROMPT = "gets a prompt of the runner's own; this server has none"
_FIXTURE_RESOURCE = "reads a resource of the runner's own; this server has none"
_ELICITS = "this server asks its clients for no input"
_NO_TASKS = "this server does not offer the extension tasks"
_NO_SKILLS = "this server does not offer the extension for skills"

DO_NOT_APPLY: dict[str, str] = {
    "logging-set-level": "this server does not offer logging to clients; the newest revision deprecates it",
    "completion-complete": "this server has no prompts or templates of resources to complete arguments of",
    **dict.fromkeys(
        (
            "tools-call-simple-text",
            "tools-call-image",
            "tools-call-audio",
            "tools-call-embedded-resource",
            "tools-call-mixed-content",
            "tools-call-with-logging",
            "tools-call-with-progress",
            "json-schema-2020-12",
        ),
        _FIXTURE_TOOL,
    ),
    "http-custom-header-server-validation": "needs a tool with parameters in headers (x-mcp-header)",
    "server-sse-polling": "calls a tool of the runner's own, and needs streams that can be resumed: a run "
    "goes on whoever is connected, and wait_run finds it again",
    **dict.fromkeys(
        (
            "tools-call-sampling",
            "tools-call-elicitation",
            "elicitation-sep1034-defaults",
            "elicitation-sep1330-enums",
            "input-required-result-basic-elicitation",
            "input-required-result-basic-sampling",
            "input-required-result-basic-list-roots",
            "input-required-result-request-state",
            "input-required-result-multiple-input-requests",
            "input-required-result-multi-round",
            "input-required-result-missing-input-response",
            "input-required-result-non-tool-request",
            "input-required-result-result-type",
            "input-required-result-tampered-state",
            "input-required-result-capability-check",
            "input-required-result-ignore-extra-params",
            "input-required-result-validate-input",
        ),
        _ELICITS,
    ),
    **dict.fromkeys(
        ("resources-read-text", "resources-read-binary", "resources-templates-read"), _FIXTURE_RESOURCE
    ),
    **dict.fromkeys(
        ("resources-subscribe", "resources-unsubscribe"), "this server has no resources that could change"
    ),
    **dict.fromkeys(
        (
            "prompts-get-simple",
            "prompts-get-with-args",
            "prompts-get-embedded-resource",
            "prompts-get-with-image",
        ),
        _FIXTURE_PROMPT,
    ),
    **dict.fromkeys(
        ("sep-2640-skills-directory", "sep-2640-skills-enumeration", "sep-2640-skills-manifest"), _NO_SKILLS
    ),
    **dict.fromkeys(
        (
            "tasks-lifecycle",
            "tasks-capability-negotiation",
            "tasks-wire-fields",
            "tasks-request-state-removal",
            "tasks-mrtr-input",
            "tasks-request-headers",
            "tasks-dispatch-and-envelope",
            "tasks-status-notifications",
            "tasks-required-task-error",
            "tasks-mrtr-composition",
        ),
        _NO_TASKS,
    ),
}
