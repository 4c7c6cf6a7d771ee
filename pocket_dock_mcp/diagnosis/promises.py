"""Pure: the checks of what we promise and no benchmark asks for; `rules` has which is which."""

from __future__ import annotations

from pocket_dock_mcp.diagnosis.evidence import Answer, Evidence, amiss, held


def network(evidence: Evidence) -> Answer:
    """Judge P1."""
    wrong = amiss(evidence, "network")
    return held(
        wrong, f"{evidence.inside.network if isinstance(evidence.inside.network, str) else 'named hosts'}."
    )


def log(evidence: Evidence) -> Answer:
    """Judge P2."""
    told = evidence.setup.log_driver
    return held(
        [] if told == "none" else [f"the engine keeps a log ({told or 'not told'})"], "There is none."
    )


def lease(evidence: Evidence) -> Answer:
    """Judge P3."""
    setup = evidence.setup
    # Podman's word is always the same.
    is_told = evidence.engine.kind != "podman"
    said = {
        "its input is not open": not setup.open_stdin,
        "its input stays open": is_told and not setup.stdin_once,
        "it has a terminal": setup.tty,
        "it is not removed when it ends": not evidence.keep and not setup.auto_remove,
        "it is removed when it ends": evidence.keep and setup.auto_remove,
    }
    return held([what for what, is_so in said.items() if is_so], "It ends with who holds it, if it is to.")


def user(evidence: Evidence) -> Answer:
    """Judge P4."""
    wrong = (
        [] if evidence.setup.user in ("0:0", "0", "root") else [f"it is {evidence.setup.user or 'not told'}"]
    )
    return held(wrong, "uid 0, so that programs, which have another, cannot reach it.")


def score(evidence: Evidence) -> Answer:
    """Judge P5."""
    return held(amiss(evidence, "oom_score"), "Its programs go before the host's.")


def options(evidence: Evidence) -> Answer:
    """Judge P7."""
    weak = [one for one in evidence.setup.other_security_options if "disable" in one or "unconfined" in one]
    return held(weak, "None.")


def runtime(evidence: Evidence) -> Answer:
    """Judge P8."""
    asked, told = evidence.confinement.runtime, evidence.setup.runtime
    return held([f"{asked} was asked for, and it is {told}"] if asked and told != asked else [], f"{told}.")
