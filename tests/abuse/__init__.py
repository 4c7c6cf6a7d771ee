"""Hostile programs against the real server, each with what must come of it: see README.md here."""
