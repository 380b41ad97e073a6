"""Frames, instruction examples and the synthetic benchmark."""
