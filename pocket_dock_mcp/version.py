"""Which release this is; in a module of its own, so that every layer may say so."""

__version__ = "0.1.0"


def get_version() -> str:
    """Return the version of this package."""
    return __version__
