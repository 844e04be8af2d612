"""The report of a run: one self-contained page of what was measured of it."""
