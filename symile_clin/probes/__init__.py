"""Linear probes: what each embedding tells of findings."""
