"""What we ship, as users get it."""
