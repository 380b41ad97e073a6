"""What a study takes: sizes, memory, times, schedule, and what would stop it. No Ray, no torch."""
