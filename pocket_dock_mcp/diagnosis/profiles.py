"""The images that sandboxes are made of: which there are, and whether they are what we would build now."""

from __future__ import annotations

import os
import shutil

from pocket_dock_mcp.diagnosis.findings import Finding
from pocket_dock_mcp.diagnosis.remedies import BUILD, Machine
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ImageNotFoundError
from pocket_dock_mcp.images import PROFILES, ImageStore, ProfileInfo
from pocket_dock_mcp.settings import Settings


async def images(engine: Engine, settings: Settings, machine: Machine) -> tuple[str | None, list[Finding]]:
    """Return an image to try things in, if there is one, and what was found.

    Raises:
        EngineError: the engine failed.
    """
    store = ImageStore(engine)
    found, usable = [], {}
    for profile in PROFILES:
        finding, image_id = await _profile(store, profile, is_default=profile.name == settings.profile)
        found.append(finding)
        if image_id is not None:
            usable[profile.name] = image_id
    if settings.profile not in {profile.name for profile in PROFILES}:
        finding, image_id = await _reference(engine, settings.profile)
        found.append(finding)
        if image_id is not None:
            usable[settings.profile] = image_id
    if len(usable) < len(found):
        found += _tools(machine)
    names = (settings.profile, *usable)
    return next((usable[name] for name in names if name in usable), None), found


async def _profile(
    store: ImageStore, profile: ProfileInfo, *, is_default: bool
) -> tuple[Finding, str | None]:
    name = f"images.{profile.name}"
    built = await store.look(profile.name)
    if built is None:
        title = f"The image of {profile.name} is not built yet"
        if not is_default:
            return Finding(name, "info", title, "It is built when it is first asked for."), None
        return Finding(name, "warning", title, "The first sandbox waits for it: about a minute.", BUILD), None
    if built.state == "outdated":
        detail = "It was built by another version. The next sandbox of it builds it anew: about a minute."
        finding = Finding(name, "warning", f"The image of {profile.name} is outdated", detail, BUILD)
        # What holds does not depend on what is in it.
        return finding, built.image.id
    how = "and current" if built.state == "current" else "and was built by hand"
    return Finding(name, "ok", f"The image of {profile.name} is there {how}"), built.image.id


async def _reference(engine: Engine, reference: str) -> tuple[Finding, str | None]:
    try:
        image = await engine.image(reference)
    except ImageNotFoundError:
        detail = "The first sandbox waits for its pull."
        title = f"The image {reference} is not there yet"
        program = "docker" if engine.info.kind == "docker" else "podman"
        return Finding("images.default", "warning", title, detail, f"{program} pull {reference}"), None
    return Finding("images.default", "ok", f"The image {reference} is there"), image.id


def _tools(machine: Machine) -> list[Finding]:
    """Say what a build without a registry lacks."""
    if shutil.which("mmdebstrap", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))):
        return []
    detail = (
        "Where no container registry can be reached, images are made from this machine's package sources."
    )
    remedy = machine.install("mmdebstrap")
    return [Finding("images.mmdebstrap", "info", "There is no mmdebstrap", detail, remedy)]
