"""The report's maps of what scores hang on."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from torch import nn

from symile_clin.data.store import Cohort
from symile_clin.encoders.conv import SmallImageEncoder
from symile_clin.evaluation.page import Block, Facts, Missing, Part, Picture, Section, SideBySide, render_page
from symile_clin.model import MultimodalEncoder
from symile_clin.objectives import Symile
from symile_clin.report.attribution import attribution_section
from tests.evaluation.planted_places import fresh_model, modalities, planted_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return planted_cohort(tmp_path_factory.mktemp("places") / "planted", count=20, lacking={"list": list(range(1, 20))})


def section(cohort: Cohort, model: MultimodalEncoder, *, seed: int = 0, count: int = 3) -> Section:
    return attribution_section(
        model=model, objective=Symile(), cohort=cohort, modalities=modalities(), split="test", target="picture",
        seed=seed, device="cpu", count=count,
    )  # fmt: skip


def shown(block: Block) -> list[Block]:
    """A block and all within it."""
    within = block.blocks if isinstance(block, Part | SideBySide) else []
    return [block, *[one for part in within for one in shown(part)]]


def test_samples_are_drawn_and_each_modality_has_a_picture_or_says_why_not(cohort: Cohort) -> None:
    model = fresh_model(Symile(), placeholders=("list",))
    found = section(cohort, model, count=20)
    parts = [block for block in found.blocks if isinstance(block, Part)]
    assert sorted(part.title.split(":")[0] for part in parts) == sorted(f"Sample in row {row}" for row in range(20))
    pictures = [one for part in parts for one in shown(part) if isinstance(one, Picture)]
    assert len(pictures) == 21
    assert all(one.data.startswith(b"\x89PNG") and one.alt and one.caption for one in pictures)
    missing = [one.text for part in parts for one in shown(part) if isinstance(one, Missing)]
    assert missing == ["list: this sample has none."] * 19
    (told,) = [block for block in found.blocks if isinstance(block, Facts)]
    assert told.values == {"picture": "Dark is much.", "list": "Right is up."}
    assert "data:image/png" in render_page("t", [found])


def test_words_say_what_pictures_show(cohort: Cohort) -> None:
    found = section(cohort, fresh_model(Symile(), placeholders=("list",)), count=20)
    (first,) = [
        block for block in found.blocks if isinstance(block, Part) and block.title.startswith("Sample in row 0:")
    ]
    alts = [one.alt for one in shown(first) if isinstance(one, Picture)]
    assert any("% of its height and" in alt for alt in alts)
    assert any(
        alt.startswith("Bars: what each part of list changes in the score, the largest being bit ") for alt in alts
    )


def test_the_draw_follows_the_seed(cohort: Cohort) -> None:
    model = fresh_model(Symile(), placeholders=("list",))
    assert section(cohort, model) == section(cohort, model)
    titles = {tuple(str(block.title) for block in section(cohort, model, seed=seed).blocks if isinstance(block, Part))
              for seed in range(4)}  # fmt: skip
    assert len(titles) > 1
    assert {len(one) for one in titles} == {3}


def test_only_samples_that_can_be_scored_are_shown(cohort: Cohort, tmp_path: Path) -> None:
    found = section(cohort, fresh_model(Symile()), count=5)
    assert [block.title.split(":")[0] for block in found.blocks if isinstance(block, Part)] == ["Sample in row 0"]
    nobody = planted_cohort(tmp_path / "nobody", count=4, lacking={"list": [0, 1, 2, 3]})
    (only,) = section(nobody, fresh_model(Symile())).blocks
    assert isinstance(only, Missing)


def test_a_flat_map_is_said_and_not_drawn(cohort: Cohort) -> None:
    model = fresh_model(Symile(), placeholders=("list",))
    nn.init.zeros_(cast(SmallImageEncoder, model.encoders["picture"]).fc.weight)
    found = section(cohort, model, count=20)
    (first,) = [
        block for block in found.blocks if isinstance(block, Part) and block.title.startswith("Sample in row 0:")
    ]
    texts = [one.text for one in shown(first) if isinstance(one, Missing)]
    assert texts == ["picture: the score does not answer to it; the map is flat."]
