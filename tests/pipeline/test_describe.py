"""`cohort describe`: the newest cohort's tables, and figures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from symile_clin.errors import NotFoundError
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.describe import describe_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import SPEC, Tree


def test_describe_tells_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="no cohort"):
        describe_cohort(progress=Quiet())
    tree = Tree(tmp_path / "tree")
    for number in range(16):
        tree.complete(10_000_001 + number, 20_000_001 + number)
    tree.admission(10_000_001, 20_000_099)
    Path("tiny.yaml").write_text(dump_yaml(apply_overrides(SPEC, ())))
    roots: dict[str, Any] = {**tree.write()}
    built = build_cohort(spec="tiny.yaml", workers=1, tracking_uri=None, progress=Quiet(), **roots)

    description = describe_cohort(progress=Quiet())
    text = description.text()
    for part in ("Attrition", "index events", "Splits", "sex F", "median age", "AP", "50912 Creatinine"):
        assert part in text
    sizes = description.tables["Splits"].set_index("split")["samples"]
    assert sizes.to_dict() == {**built.samples, "all": sum(built.samples.values())}
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in description.figures)
    assert {figure.parent for figure in description.figures} == {built.path / "figures"}
    assert len(description.figures) == len(set(description.figures)) >= 3
    json.dumps(description.record())
