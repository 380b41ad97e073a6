"""Compute-optimal video vision language models."""
