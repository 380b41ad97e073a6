"""From records to an answer: tables read, fits made and kept, analyses and comparisons."""
