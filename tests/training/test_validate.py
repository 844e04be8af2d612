"""Validation where samples lack modalities: what is asked, what the loss is of, and that neither is ever NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from symile_clin.data.dataset import CohortDataset
from symile_clin.data.store import Cohort, open_cohort
from symile_clin.errors import CohortError, MismatchError
from symile_clin.evaluation.absence import stand_ins
from symile_clin.evaluation.embed import embed
from symile_clin.evaluation.retrieval import rank, score_lists
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import PairwiseClip, Symile
from symile_clin.objectives.base import Objective
from symile_clin.ranks import ALONE
from symile_clin.schema import SAMPLES, present_column
from symile_clin.training.validate import Validation, validate
from tests.data.vectors import NAMES, WIDTH, candidate_lists, modalities, vector_cohort

CPU = torch.device("cpu")


def model(*placeholders: str) -> MultimodalEncoder:
    torch.manual_seed(0)
    encoders = {name: nn.Linear(WIDTH, 8) for name in NAMES}
    return MultimodalEncoder(
        encoders, dim=8, normalization="layernorm", logit_scale_init=-1.0, placeholders=placeholders
    )


def lacking(path: Path, **rows: list[int]) -> Cohort:
    """Training samples 0 to 39 have everything, validation samples 40 to 69 what is left of it."""
    cohort = vector_cohort(path, train=40, val=30)
    samples = pd.read_parquet(path / SAMPLES)
    for name in NAMES:
        samples[present_column(name)] = ~samples["row"].isin(rows.get(name, []))
    samples.to_parquet(path / SAMPLES)
    return open_cohort(cohort.path)


def validated(
    cohort: Cohort, chosen: MultimodalEncoder, objective: Objective, *, queries: NDArray[np.int64] | None = None
) -> Validation:
    rows = cohort.rows("val")
    return validate(
        model=chosen,
        objective=objective,
        dataset=CohortDataset(cohort, modalities(), rows),
        candidates=candidate_lists(rows if queries is None else queries, n=5),
        target="blue",
        batch_size=12,
        device=CPU,
        ranks=ALONE,
    )


@pytest.mark.parametrize("objective", [Symile(), Symile(negatives="permuted"), PairwiseClip(normalization="layernorm")])
def test_what_no_training_sample_lacked_is_marginalised_and_left_out_of_the_loss(
    tmp_path: Path, objective: Objective
) -> None:
    cohort = lacking(tmp_path / "lacking", red=[45, 50, 51], green=[50, 60])
    chosen = model()
    found = validated(cohort, chosen, objective)
    encoded = embed(
        model=chosen, dataset=CohortDataset(cohort, modalities(), cohort.rows("val")), batch_size=7, device=CPU
    )
    absent = stand_ins(
        model=chosen, names=["red", "green"], cohort=cohort, modalities=modalities(), batch_size=7, device=CPU
    )
    assert absent.samples == 40
    scores = score_lists(
        objective, encoded.embeddings, cohort.rows("val"), candidate_lists(cohort.rows("val"), n=5), "blue",
        present=encoded.present, stand_ins=absent,
    )  # fmt: skip
    assert found.recall_at_1 == float(rank(scores).recall_at(1).mean())
    # as if those four samples were not there: the rest is one batch, and exhaustive negatives know no order
    complete = np.setdiff1d(cohort.rows("val"), [45, 50, 51, 60])
    losses = [
        validate(
            model=chosen,
            objective=objective,
            dataset=CohortDataset(cohort, modalities(), rows),
            candidates=candidate_lists(complete, n=5),
            target="blue",
            batch_size=100,
            device=CPU,
            ranks=ALONE,
        ).loss
        for rows in (cohort.rows("val"), complete)
    ]
    assert np.isfinite(losses).all()
    if not (isinstance(objective, Symile) and objective.negatives == "permuted"):
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_placeholders_stay_in_the_loss(tmp_path: Path) -> None:
    cohort = lacking(tmp_path, red=[45, 50], blue=[41, 42])
    learned = model("red", "blue")
    queries = np.setdiff1d(cohort.rows("val"), [41, 42])
    whole = validated(cohort, learned, Symile(), queries=queries)
    assert np.isfinite([whole.loss, whole.recall_at_1]).all()
    with torch.no_grad():
        learned.placeholders["red"].mul_(-3.0)
    assert validated(cohort, learned, Symile(), queries=queries).loss != whole.loss


def test_with_nothing_absent_the_reference_is_never_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = lacking(tmp_path)
    rows = {"val": cohort.rows("val")}  # asking for those of train is an error
    monkeypatch.setattr(Cohort, "rows", lambda _, split: rows[split])
    assert np.isfinite(validated(cohort, model(), Symile()).loss)


def test_who_lacks_the_target_is_not_asked_about_it(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="lack blue, which is to be retrieved"):
        validated(lacking(tmp_path, blue=[45]), model("blue"), Symile())


def test_a_split_in_which_everybody_lacks_something_new_says_so(tmp_path: Path) -> None:
    cohort = lacking(tmp_path, red=list(range(40, 69)))
    with pytest.raises(CohortError, match="1 validation samples have all that every training sample has"):
        validated(cohort, model(), Symile())
