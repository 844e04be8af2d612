"""Two cohorts compared: every sample and choice against a loop, on built cohorts, with ties and lost samples."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from symile_clin.data.difference import EQUAL, OUTCOMES, Difference, difference
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree

Make = Callable[..., Cohort]
ADMISSIONS = 24


def make_tree(root: Path) -> Tree:
    """24 admissions with one image, record and value each, and what the tests change by windows."""
    tree = Tree(root)
    for number in range(ADMISSIONS):
        tree.complete(10_000_000 + number, 20_000_000 + number, ADMITTED + number * HOUR)
    # admission 0: two images of one study at one time; two values of one lab at one time; a later record
    tree.xray(10_000_000, 50_000_000, ADMITTED + 30 * HOUR, image=7, labels=0)
    tree.lab(10_000_000, ADMITTED + HOUR, 77.0)
    # admission 1: its only image is late, at 60 h
    tree.rows["cxr_metadata"][1]["StudyDate"] = int((ADMITTED + 61 * HOUR).strftime("%Y%m%d"))
    tree.rows["cxr_metadata"][1]["StudyTime"] = float((ADMITTED + 61 * HOUR).strftime("%H%M%S"))
    # admission 2: an earlier image that only a wider window has, and an earlier lab value
    tree.xray(10_000_002, 51_000_002, ADMITTED + timedelta(hours=2 + 12))
    tree.lab(10_000_002, ADMITTED + 2 * HOUR - 30 * HOUR, 55.0)
    return tree


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Build the tree under other settings; equal ones once."""
    root = tmp_path_factory.mktemp("trees")
    tree = make_tree(root / "tree")
    roots = tree.write()
    done: dict[tuple[str, ...], Cohort] = {}

    def build(*overrides: str) -> Cohort:
        if overrides not in done:
            spec = root / f"{len(done)}.yaml"
            spec.write_text(dump_yaml(apply_overrides(SPEC, overrides)))
            out = root / f"cohort{len(done)}"
            build_cohort(spec=str(spec), out=out, workers=1, tracking_uri=None, progress=Quiet(), **roots)  # type: ignore[arg-type]  # sources by option
            done[overrides] = open_cohort(out)
        return done[overrides]

    return build


def compare(a: Cohort, b: Cohort) -> Difference:
    return difference(a, b, modalities_a=modalities_of(a.spec), modalities_b=modalities_of(b.spec))


def choices(found: Difference) -> dict[tuple[str, str], dict[str, int]]:
    """Counts that are not zero and not of equal ones, by modality and what."""
    kept = {}
    for row in found.choices.itertuples(index=False):
        counts = dict(zip(OUTCOMES, row[2:], strict=True))
        if any(count for outcome, count in counts.items() if outcome != EQUAL):
            kept[str(row[0]), str(row[1])] = {one: int(n) for one, n in counts.items() if n and one != EQUAL}
    return kept


def test_a_cohort_does_not_differ_from_itself(make: Make) -> None:
    found = compare(make(), make())
    assert found.counts["jaccard"] == 1
    assert found.counts["only_a"] == found.counts["only_b"] == found.counts["split_changed"] == 0
    assert not found.settings
    assert not found.sources
    assert choices(found) == {}
    assert found.samples.empty
    assert found.choices["equal"].tolist() == [ADMISSIONS] * 4


def test_a_sample_that_left_is_named_with_the_other_cohorts_reason(make: Make) -> None:
    found = compare(make(), make("modalities.cxr.window.end=48h"))
    assert found.counts["both"] == ADMISSIONS - 1
    assert found.only_a.to_dict("records") == [{"step": "cxr", "reason": "no event in the window", "samples": 1}]
    assert found.only_b.empty
    assert found.settings == {"modalities.cxr.window.end": ("72h", "48h")}
    row = found.samples[found.samples["difference"] == "only in A"].iloc[0]
    assert (row["sample_id"], row["detail"]) == ("20000001", "cxr: no event in the window")
    back = compare(make("modalities.cxr.window.end=48h"), make())
    assert back.only_b.to_dict("records") == found.only_a.to_dict("records")
    assert back.settings == {"modalities.cxr.window.end": ("48h", "72h")}


def test_other_windows_change_what_is_chosen_and_are_no_tie(make: Make) -> None:
    wide = make("modalities.cxr.window.start=6h", "modalities.labs.window.start=-48h")
    found = compare(make(), wide)
    assert choices(found) == {("cxr", "image"): {"another": 1}, ("labs", "50912"): {"another": 1}}
    assert set(found.settings) == {"modalities.cxr.window.start", "modalities.labs.window.start"}
    of_choices = found.samples[found.samples["difference"] == "choice"]
    assert of_choices["sample_id"].tolist() == ["20000002"] * 2
    assert of_choices["detail"].tolist() == ["another"] * 2


def test_ties_in_time_are_kept_apart(make: Make, tmp_path: Path) -> None:
    """As if another tool had taken the second image, and the second value of the lab."""
    a = make()
    b = copy(a, tmp_path / "other")
    samples = b.samples.copy()
    tied = samples["hadm_id"] == 20_000_000
    assert samples.loc[tied, "lab_50912"].item() != 77.0
    samples.loc[tied, "cxr_dicom_id"] = f"{7:08x}-00000000-00000000-00000000-{50_000_000:08x}"
    samples.loc[tied, "lab_50912"] = 77.0
    other = samples["hadm_id"] == 20_000_005
    samples.loc[other, "lab_50912"] = 1234.0
    samples.loc[other, "lab_50931"] = np.nan
    samples.to_parquet(b.path / "samples.parquet")
    (b.path / "ties.parquet").unlink()
    expected = {
        ("cxr", "image"): {"tie in time": 1},
        ("labs", "50912"): {"tie in time": 1, "another": 1},
        ("labs", "50931"): {"only in A": 1},
    }
    assert choices(compare(a, open_cohort(b.path))) == expected
    expected[("labs", "50931")] = {"only in B": 1}
    assert choices(compare(open_cohort(b.path), a)) == expected


def test_ties_are_every_event_at_the_chosen_ones_time_and_no_other(make: Make) -> None:
    ties = pd.read_parquet(make().path / "ties.parquet")
    assert ties["sample_id"].tolist() == ["20000000"] * 2
    assert ties["cxr_dicom_id"].dropna().tolist() == [f"{7:08x}-00000000-00000000-00000000-{50_000_000:08x}"]
    assert ties["lab_50912"].dropna().tolist() == [77.0]
    assert ties["lab_50931"].isna().all()
    assert ties["ecg_study_id"].isna().all()
    assert (make().path / "ties.parquet").stat().st_mode & 0o077 == 0


def test_another_seed_changes_splits_and_nothing_else(make: Make) -> None:
    a, b = make(), make("splits.seed=5")
    found = compare(a, b)
    split_a = dict(zip(a.samples["sample_id"], a.samples["split"], strict=True))
    split_b = dict(zip(b.samples["sample_id"], b.samples["split"], strict=True))
    moved = {sample: (split_a[sample], split_b[sample]) for sample in split_a if split_a[sample] != split_b[sample]}
    assert moved
    assert found.counts["split_changed"] == len(moved)
    pairs = list(moved.values())
    assert {(row.a, row.b): row.samples for row in found.splits.itertuples()} == {p: pairs.count(p) for p in pairs}
    assert choices(found) == {}


def test_what_no_book_tells_is_said(make: Make, tmp_path: Path) -> None:
    late = copy(make("modalities.cxr.window.end=48h"), tmp_path / "late")
    book = pd.read_parquet(late.path / "attrition.parquet")
    book.iloc[:0].to_parquet(late.path / "attrition.parquet")
    assert compare(make(), late).only_a["reason"].tolist() == ["not among its index events"]
    (late.path / "attrition.parquet").unlink()
    assert compare(make(), late).only_a["reason"].tolist() == ["not known: it has no attrition.parquet"]


def test_cohorts_without_a_common_sample_are_compared_too(make: Make, tmp_path: Path) -> None:
    other = copy(make(), tmp_path / "other")
    samples = other.samples.assign(sample_id=lambda s: "x" + s["sample_id"].astype(str))
    samples.to_parquet(other.path / "samples.parquet")
    found = compare(make(), open_cohort(other.path))
    assert (found.counts["both"], found.counts["jaccard"]) == (0, 0)
    assert found.choices["equal"].sum() == 0
    assert (found.counts["admissions_both"], found.counts["admissions_jaccard"]) == (ADMISSIONS, 1)


def test_the_last_bit_of_a_decimal_is_no_difference(make: Make, tmp_path: Path) -> None:
    other = copy(make(), tmp_path / "other")
    samples = other.samples.assign(lab_50912=lambda s: np.nextafter(s["lab_50912"], np.inf))
    samples.to_parquet(other.path / "samples.parquet")
    assert choices(compare(make(), open_cohort(other.path))) == {}


def copy(cohort: Cohort, to: Path) -> Cohort:
    """The cohort's tables under another path."""
    to.mkdir()
    for name in ("manifest.json", "samples.parquet", "attrition.parquet", "ties.parquet"):
        (to / name).write_bytes((cohort.path / name).read_bytes())
    return open_cohort(to)
