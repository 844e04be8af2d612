"""Clinical multimodal research toolkit: MIMIC labs, ECGs and chest X-rays, trained with Symile."""

__version__ = "0.1.0"
