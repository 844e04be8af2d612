"""Names of the CheXpert findings in the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from symile_clin.modalities.cxr.tables import FINDINGS

#: Finding as the table calls it -> in snake_case, in the table's order.
FINDING_NAMES: Final[Mapping[str, str]] = {finding: finding.lower().replace(" ", "_") for finding in FINDINGS}
