"""lmms-eval in process: the paper's eight benchmarks and local tasks."""
