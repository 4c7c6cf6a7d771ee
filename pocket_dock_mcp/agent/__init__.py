"""The program inside a container and the ways to reach it."""
