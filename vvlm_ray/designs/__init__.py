"""Which runs to make: candidates judged on planted surfaces, and refinement after a sweep."""
