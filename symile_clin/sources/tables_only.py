"""A catalog whose sources' files are out of reach, wherever its tables are."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, final

from symile_clin.sources.catalog import Catalog

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd


@final
class TablesOnly(Catalog):
    """Another catalog's tables, and no directory of any source.

    Args:
        catalog: closed with this one.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._catalog.__exit__(kind, error, trace)

    def table(self, name: str) -> ir.Table:
        """The other catalog's."""
        return self._catalog.table(name)

    def root(self, source: str) -> Path | None:  # noqa: ARG002  no source has one
        """None: files are neither asked nor read."""
        return None

    def rows(self, frame: pd.DataFrame) -> ir.Table:
        """The other catalog's."""
        return self._catalog.rows(frame)

    def keep(self, name: str, expression: ir.Table) -> ir.Table:
        """The other catalog's."""
        return self._catalog.keep(name, expression)

    def frame(self, expression: ir.Table) -> pd.DataFrame:
        """The other catalog's."""
        return self._catalog.frame(expression)
