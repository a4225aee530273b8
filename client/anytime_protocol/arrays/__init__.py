"""The arrays of an update: their description and their bytes (`segments`, `delta`, `rle`)."""
