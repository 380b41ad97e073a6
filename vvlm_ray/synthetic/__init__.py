"""The toy world of the quickstart: clips, a benchmark, and backbones trained for it."""
