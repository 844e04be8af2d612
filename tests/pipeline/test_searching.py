"""`index`, `search` and `embed` the whole way: any objective, files as queries, a release with its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from symile_clin import cli
from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.errors import ConfigError, MismatchError, NotFoundError
from symile_clin.evaluation.embed import embed as embedded
from symile_clin.modalities.registry import modalities_of
from symile_clin.pipeline import audit, embed, index, search
from symile_clin.pipeline.adoption import adopt
from symile_clin.pipeline.cohorts import build_cohort
from symile_clin.pipeline.release import import_cohort
from symile_clin.pipeline.runs import open_run
from symile_clin.pipeline.searching import indexed, open_searcher
from symile_clin.pipeline.trained import open_trained
from symile_clin.pipeline.training import train
from symile_clin.progress import Quiet
from symile_clin.strict import apply_overrides, dump_yaml
from tests.cohort.tree import ADMITTED, HOUR, SPEC, Tree
from tests.data.released import ITEMS, write_release
from tests.pipeline.test_published import published, write_checkpoint

TINY = ("training.epochs=1", "training.batch_size=8", "model.dim=8")
ROW = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the tree, its cohort and a run."""
    root = tmp_path_factory.mktemp("searching")
    tree = Tree(root / "tree")
    for number in range(24):  # two of a patient
        tree.complete(10_000_000 + number // 2, 20_000_000 + number, ADMITTED + number * 100 * HOUR)
    (root / "spec.yaml").write_text(dump_yaml(apply_overrides(SPEC, ["candidates.n=2"])))
    with pytest.MonkeyPatch.context() as here:
        here.chdir(root)
        out = Path("data/cohorts/tiny")
        build_cohort(spec="spec.yaml", out=out, workers=1, tracking_uri=None, progress=Quiet(), **tree.write())  # type: ignore[arg-type]  # sources by option
        train(name="one", overrides=TINY, device="cpu", tracking_uri=None, progress=Quiet())
    return root


@pytest.fixture
def cohort(root: Path, monkeypatch: pytest.MonkeyPatch) -> Cohort:
    monkeypatch.chdir(root)
    return open_cohort(Path("data/cohorts/tiny"))


def files_of(cohort: Cohort, row: int, folder: Path) -> dict[str, Path]:
    """The very files that a sample came from; its values as a person would write them."""
    sample = cohort.samples.loc[row]
    values = {item: float(cohort.samples[f"lab_{item}"].iloc[row]) for item in (50912, 50931)}
    (folder / "values.json").write_text(json.dumps(values))
    roots = {"cxr": Path("tree/mimic_cxr"), "ecg": Path("tree/mimic_ecg")}
    return {**{name: root / sample[f"{name}_path"] for name, root in roots.items()}, "labs": folder / "values.json"}


def asked(**arguments: Any) -> Any:
    return search(**{"run": "one", "device": "cpu", "progress": Quiet(), **arguments})


def test_files_of_a_sample_ask_exactly_as_it_does(cohort: Cohort, tmp_path: Path) -> None:
    trained = open_trained(open_run(Path("runs"), "one"), cohort, device="cpu")
    found, _ = indexed(trained, progress=Quiet())
    query = open_searcher(trained, found).read(files_of(cohort, ROW, tmp_path))
    modalities = modalities_of(cohort.spec)
    for name, modality in modalities.items():
        for key in modality.arrays:
            np.testing.assert_array_equal(query.values[name][key], cohort.array(name, key).take(np.array([ROW]))[0])
    alone = embedded(
        model=trained.model, dataset=CohortDataset(cohort, modalities, np.array([ROW])), batch_size=1, device="cpu"
    ).embeddings
    for name, vector in query.embeddings.items():
        np.testing.assert_array_equal(vector, alone[name][0])
        # of a larger batch a convolution may be summed in another order
        np.testing.assert_allclose(vector, found.matrices[name][ROW], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["symile", "clip", "gram"])
def test_any_objective_any_direction(cohort: Cohort, tmp_path: Path, objective: str) -> None:
    name = "one"
    if objective != "symile":
        name = objective
        train(name=name, objective=objective, overrides=TINY, device="cpu", tracking_uri=None, progress=Quiet())
    paths = files_of(cohort, ROW, tmp_path)
    for target in paths:
        query = {one: path for one, path in paths.items() if one != target}
        by_file, by_row = (
            asked(run=name, query=query, target=target, k=4),
            asked(run=name, sample=str(ROW), target=target, k=4),
        )
        assert by_file.table["row"].tolist() == by_row.table["row"].tolist()
        np.testing.assert_allclose(by_file.table["score"], by_row.table["score"], rtol=1e-3, atol=1e-4)
    alone = asked(run=name, query={"ecg": paths["ecg"]}, k=3, split="test")
    assert set(alone.table["split"]) == {"test"}
    assert "labs not asked with: marginalised over" in alone.text()
    json.dumps(alone.record(), allow_nan=False)


def test_it_is_indexed_once_and_again_where_the_weights_are_others(cohort: Cohort) -> None:
    first = index(run="one", device="cpu", progress=Quiet())
    second = index(run="one", device="cpu", progress=Quiet())
    assert first.directory == Path("runs/one/index/own")
    assert not second.made
    assert "already" in second.text()
    manifest = json.loads((first.directory / "manifest.json").read_text())
    (first.directory / "manifest.json").write_text(json.dumps({**manifest, "checkpoint": "of other weights"}))
    assert index(run="one", device="cpu", progress=Quiet()).made
    assert str(cohort.path.absolute()) not in (first.directory / "manifest.json").read_text()


def test_what_another_cohort_fitted_is_not_taken_for_the_runs_own(cohort: Cohort, tmp_path: Path) -> None:
    manifest = cohort.path / "manifest.json"
    own = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(own), "hash": "of another build"}))
    try:
        with pytest.raises(MismatchError, match="no longer the cohort that run 'one' was trained on"):
            asked(query={"labs": files_of(cohort, ROW, tmp_path)["labs"]}, k=1)
        with pytest.raises(MismatchError, match="no longer the cohort that run 'one' was trained on"):
            audit(run="one", device="cpu", tracking_uri=None, progress=Quiet())
        asked(sample=str(ROW), k=1)  # the new cohort is one like any other
    finally:
        manifest.write_text(own)


def test_the_page_is_the_users_alone_and_the_output_without_ids(
    cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    sample = str(cohort.samples.loc[ROW, "sample_id"])
    common = ["search", "--run", "one", "--device", "cpu", "--sample", sample, "-k", "3"]
    assert cli.run([*common, "--html", str(page), "--quiet", "--json"]) == 0
    out = capsys.readouterr().out
    record = json.loads(out)
    assert record["row"] == ROW
    assert page.stat().st_mode & 0o777 == 0o600
    subject = str(cohort.samples.loc[ROW, "subject_id"])
    for text in (out, page.read_text()):
        assert subject not in text
        assert sample not in text
    assert page.read_text().count("data:image/png") == 1 + 3, "the record, and what was found"
    paths = files_of(cohort, ROW, tmp_path)
    queries = [part for name in ("ecg", "labs") for part in ("--query", f"{name}={paths[name]}")]
    assert cli.run([*common[:5], *queries, "--html", str(page), "--with-ids"]) == 0
    assert "subject_id" in capsys.readouterr().out
    assert str(paths["ecg"]) not in page.read_text()


def test_what_cannot_be_asked_is_said_before_anything_is_embedded(
    cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: str, code: int = 2) -> str:
        assert cli.run(["search", "--run", "one", "--device", "cpu", *arguments]) == code
        return capsys.readouterr().err

    assert "nothing to ask with" in fails()
    assert "is not NAME=PATH" in fails("--query", "ecg")
    assert "given twice" in fails("--query", "ecg=a", "--query", "ecg=b")
    assert "at once" in fails("--query", "ecg=a", "--sample", "1")
    assert "cxr is asked for, and asked with, too" in fails("--query", "cxr=a")
    assert "Did you mean 'ecg'" in fails("--query", "egc=a")
    assert "k is 0" in fails("--sample", "1", "-k", "0")
    assert "no sample '77'" in fails("--sample", "77")
    assert "no sample 'row:77'" in fails("--sample", "row:77")
    assert "file missing" in fails("--query", f"ecg={tmp_path}/absent", code=3)
    ids = cohort.samples["sample_id"].tolist()
    assert asked(sample="row:3", k=1).query.row == asked(sample=ids[3], k=1).query.row == 3


def test_embeddings_as_files_for_other_programs(cohort: Cohort, tmp_path: Path) -> None:
    whole = embed(run="one", split="all", out=tmp_path / "all.parquet", device="cpu", progress=Quiet())
    part = embed(run="one", split="test", with_ids=True, out=tmp_path / "test.npz", device="cpu", progress=Quiet())
    assert whole.samples == len(cohort.samples)
    index(run="one", device="cpu", progress=Quiet())
    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert list(frame) == ["row", "split", "cxr_present", "ecg_present", "labs_present", "cxr", "ecg", "labs"]
    rows = cohort.rows("test")
    with np.load(tmp_path / "test.npz", allow_pickle=False) as stored:
        assert stored["row"].tolist() == rows.tolist()
        assert stored["subject_id"].tolist() == cohort.samples["subject_id"].iloc[rows].tolist()
        assert stored["hadm_id"].tolist() == cohort.samples["hadm_id"].iloc[rows].tolist()
        assert set(stored["split"]) == {"test"}
        about = json.loads(str(stored["symile_clin"]))
        for name in ("cxr", "ecg", "labs"):
            assert stored[name].dtype == np.float32
            every = np.stack(frame[name].tolist())
            np.testing.assert_array_equal(every, np.load(f"runs/one/index/own/{name}.npy"))
            np.testing.assert_allclose(stored[name], every[rows], rtol=1e-4, atol=1e-5)
    assert (about["run"], about["dim"], about["cohort"]["hash"]) == ("one", 8, cohort.hash)
    import pyarrow.parquet as pq

    schema = pq.read_schema(tmp_path / "all.parquet")
    assert str(schema.field("ecg").type) == "fixed_size_list<element: float>[8]"
    assert json.loads(schema.metadata[b"symile_clin"])["split"] == "all"
    for written in (whole, part):
        assert written.path.stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "test.npz").read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        embed(run="one", out=tmp_path / "test.npz", device="cpu", progress=Quiet())
    with pytest.raises(ConfigError, match=r"Expected one in \.parquet or \.npz"):
        embed(run="one", out=tmp_path / "test.csv", device="cpu", progress=Quiet())
    assert (tmp_path / "test.npz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_a_released_checkpoint_searches_the_release(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    release = write_release(tmp_path / "release", admissions=16, dropped=0, candidates=2)
    import_cohort(release=release.root, out=Path("data/cohorts/released"), progress=Quiet())
    cohort = open_cohort(Path("data/cohorts/released"))
    checkpoint = write_checkpoint(Path("symile_mimic_model.ckpt"), published(items=len(ITEMS)))
    adopt(
        checkpoint, root=Path("runs"), cohort=cohort, objective=None, tracking_uri=None, allow_remote_tracking=False,
        progress=Quiet(),
    )  # fmt: skip
    found = search(
        sample="3", k=4, target="cxr", exclude_own=True, html=Path("page.html"), device="cpu", progress=Quiet()
    )
    assert len(found.table) == 4
    assert 3 not in found.table["row"].tolist()
    record = next((root / "tree/mimic_ecg").rglob("*.hea"))
    Path("values.csv").write_text("itemid,value\n50912,1.5\n")
    files = {"ecg": record, "labs": Path("values.csv")}
    by_file = search(query=files, k=2, html=Path("page.html"), device="cpu", progress=Quiet())
    signal = by_file.query.values["ecg"]["signal"]
    assert (signal.shape, signal.min(), signal.max()) == ((1, 5000, 12), -1.0, 1.0)


def test_no_run_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="symile-clin train"):
        search(sample="1", progress=Quiet())
