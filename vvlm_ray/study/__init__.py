"""What a study is: its file, its points, its trials, its folder and records. No Ray, no torch."""
