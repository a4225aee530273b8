"""Data sets: five layouts on disk, read into one kind of `Sample`."""
