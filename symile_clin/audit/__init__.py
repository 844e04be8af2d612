"""Samples that look wrong: possible mix-ups, and inputs unlike the training data."""
