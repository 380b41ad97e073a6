"""One solver a file: fast (compiled descent), search (starts and races), lbfgs (the paper's)."""
