"""One file a figure, and the style they share. They draw and never fit."""
