"""What `scripts/engines` is made of. Standard library only, for Debian 12's own Python."""
