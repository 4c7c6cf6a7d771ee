"""Which release this is; in a module of its own, so that every layer may say so."""

__version__ = "0.1.0"
