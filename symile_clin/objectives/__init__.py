"""Contrastive objectives over any number of modalities, each with the score that belongs to its loss."""

from symile_clin.objectives.clip import PairwiseClip
from symile_clin.objectives.gated_symile import GatedSymile
from symile_clin.objectives.gram import Gram
from symile_clin.objectives.symile import Symile
from symile_clin.objectives.triangle import Triangle

__all__ = ["GatedSymile", "Gram", "PairwiseClip", "Symile", "Triangle"]
