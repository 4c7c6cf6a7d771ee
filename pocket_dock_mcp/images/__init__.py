"""Images: from a profile's name or an image reference to an image that the engine has.

ensure     ImageStore: look it up, else pull or build it, once for all who wait
base       what a build starts from: the engine, a registry, or this machine's own package sources
bootstrap  a root filesystem by mmdebstrap
cache      files that are made once and kept for days
sources    PURE  which of apt's sources are the distribution's own
recipe     PURE  what an image is made of, as one hash and one tar
references PURE  the grammar of image references
profiles   the images that we bring along
"""

from pocket_dock_mcp.images.ensure import ImageStore, ensure_image
from pocket_dock_mcp.images.profiles import (
    PROFILES,
    ProfileInfo,
    default_network,
    list_profiles,
    resolve_profile,
)

__all__ = [
    "PROFILES",
    "ImageStore",
    "ProfileInfo",
    "default_network",
    "ensure_image",
    "list_profiles",
    "resolve_profile",
]
