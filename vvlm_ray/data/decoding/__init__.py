"""What turns one opened file into frames: runs in a process of its own (child.py), asked by pool.py."""
