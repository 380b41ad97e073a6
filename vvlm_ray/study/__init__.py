"""What a study is: its file, its designs, its trials and its records. No Ray, no torch."""
