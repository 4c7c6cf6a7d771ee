"""One running container and what can be done with it."""
