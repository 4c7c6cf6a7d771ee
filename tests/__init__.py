"""The tests. What needs an engine gets it from `tests.engines`; see ``conftest.py``."""
