"""Drivers that several cases use."""
