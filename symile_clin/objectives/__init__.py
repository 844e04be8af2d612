"""Contrastive objectives over any number of modalities, each with the score that belongs to its loss."""

from symile_clin.objectives.clip import PairwiseClip
from symile_clin.objectives.symile import Symile

__all__ = ["PairwiseClip", "Symile"]
