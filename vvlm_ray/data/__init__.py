"""Frames and instruction examples."""
