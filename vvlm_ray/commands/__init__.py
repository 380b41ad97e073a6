"""The commands of the console script, one file for each kind of work."""
