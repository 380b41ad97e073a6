"""Everything Ray and W&B: the searcher, the trial driver, tracking, fits as tasks."""
