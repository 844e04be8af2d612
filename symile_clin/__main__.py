"""`python -m symile_clin`."""

from symile_clin.cli import main

main()
