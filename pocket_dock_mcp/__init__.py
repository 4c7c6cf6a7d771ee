"""Sandboxes on your own Podman or Docker, for LLM agents and everybody else."""

__version__ = "0.1.0"
