"""Experiments on data that needs no cohort, run on the same objectives, model and training step as cohorts are."""
