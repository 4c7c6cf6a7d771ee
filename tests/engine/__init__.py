"""Tests that only a real kernel can pass."""
