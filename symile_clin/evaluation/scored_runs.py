"""Runs that were asked the same questions, and which of them are seeds of one config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from symile_clin.errors import ConfigError, MismatchError
from symile_clin.evaluation.measures import MEANS
from symile_clin.evaluation.ranked import Ranked
from symile_clin.schema import Split

Values = NDArray[np.float64]

#: Settings in which runs of one config may differ: the seed, and the name of the file that the settings came from.
NOT_OF_THE_CONFIG: Final = ("seed", "preset")


@dataclass(frozen=True)
class Scored:
    """A run and where the truth stood for its queries, asked in one way.

    Attributes:
        config: the resolved settings, flat, with `seed`.
        trained_on, cohort: name and hash of the cohort that trained it, and of the one it was evaluated on.
        seen: queries whose patients it was trained on, in another cohort; none unless the evaluation found some.
    """

    run: str
    config: Mapping[str, object]
    trained_on: tuple[str, str]
    cohort: tuple[str, str]
    split: Split
    ranked: Ranked
    seen: int = 0

    def values(self, metric: str) -> Values:
        """(q,) the metric, query by query."""
        return MEANS[metric](self.ranked.ranks)


@dataclass(frozen=True)
class Group:
    """Runs of one config, each with its own seed; most often a single one."""

    label: str
    runs: tuple[Scored, ...]

    def values(self, metric: str) -> Values:
        """(q,) the metric, query by query, averaged over the runs."""
        mean: Values = np.mean([run.values(metric) for run in self.runs], axis=0)
        return mean


def check_same_queries(reference: Scored, other: Scored) -> None:
    """Refuse two runs that were not asked the same questions.

    Raises:
        MismatchError: naming everything that differs.
    """
    a, b = reference.ranked, other.ranked
    differs = []
    if reference.cohort[1] != other.cohort[1]:
        differs.append(f"cohort {_known_as(reference.cohort)} and {_known_as(other.cohort)}")
    for what, of_a, of_b in (
        ("split", reference.split, other.split),
        ("target", a.target, b.target),
        ("lists", a.protocol, b.protocol),
        ("query", "+".join(a.query), "+".join(b.query)),
    ):
        if of_a != of_b:
            differs.append(f"{what} {of_a} and {of_b}")
    if not np.array_equal(a.query_row, b.query_row):
        only_a, only_b = len(np.setdiff1d(a.query_row, b.query_row)), len(np.setdiff1d(b.query_row, a.query_row))
        differs.append(
            f"query rows ({len(a.query_row):,} and {len(b.query_row):,}; {only_a:,} and {only_b:,} without the other)"
        )
    else:
        unequal = int((a.n_candidates != b.n_candidates).sum())
        if unequal:
            differs.append(f"list lengths (of {unequal:,} of {len(a.query_row):,} queries)")
        if not np.array_equal(_in_order_met(a.patient), _in_order_met(b.patient)):
            differs.append("which queries are of one patient")
    if differs:
        raise MismatchError(
            f"runs '{reference.run}' and '{other.run}' were scored on different queries: {'; '.join(differs)}",
            remedy="Evaluate both on the same cohort and split: symile-clin eval RUN --cohort DIR --split SPLIT; then "
            "compare with the same --cohort",
        )


def group_runs(runs: Sequence[Scored]) -> list[Group]:
    """Runs whose settings differ in nothing but the seed become one group, in the order in which they first appear.

    Where all runs are of one config there would be nothing to compare: then each is a group of its own.

    Raises:
        ConfigError: fewer than two runs, one named twice, or the same training twice in a group.
    """
    names = [run.run for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"run '{twice[0]}' is named twice", remedy="Name each run once")
    if len(runs) < 2:
        raise ConfigError("a comparison needs at least two runs", remedy="Name another: symile-clin compare RUN RUN")
    alike: dict[str, list[Scored]] = {}
    for run in runs:
        alike.setdefault(_config_of(run), []).append(run)
    if len(alike) == 1:
        return [Group(run.run, (run,)) for run in runs]
    for members in alike.values():
        _refuse_copies(members)
    labels = [_label([member.run for member in members]) for members in alike.values()]
    return [
        Group(label if labels.count(label) == 1 else " + ".join(member.run for member in members), tuple(members))
        for label, members in zip(labels, alike.values(), strict=True)
    ]


def doubts(groups: Sequence[Group]) -> list[str]:
    """What a reader of their comparison must know: sentences, most often none."""
    runs = [run for group in groups for run in group.runs]
    found = []
    if len({run.trained_on[1] for run in runs}) > 1:
        trained = "; ".join(f"{run.run} on {_known_as(run.trained_on)}" for run in runs)
        found.append(f"The runs were trained on different cohorts, which may be all that differs: {trained}.")
    seen = [f"{run.run} {run.seen:,} of {len(run.ranked.query_row):,}" for run in runs if run.seen]
    if seen:
        found.append(f"Queries are of patients that a run was trained on, in another cohort: {', '.join(seen)}.")
    if len(groups) == len(runs) and len({_config_of(run) for run in runs}) == 1:
        found.append("The runs are seeds of one config, so each is compared by itself: differences are those of seeds.")
    for group in groups:
        seeds = [run.config.get("seed") for run in group.runs]
        if len(set(seeds)) < len(seeds):
            found.append(
                f"Some runs of {group.label} have the same seed: their spread is not only what other seeds change."
            )
    return found


def settings_that_differ(first: Mapping[str, object], second: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Keys of two flat configs with their unequal values; "-" where a config lacks the key."""
    pairs = {key: (first.get(key, "-"), second.get(key, "-")) for key in sorted({*first, *second})}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and key not in NOT_OF_THE_CONFIG}


def _config_of(run: Scored) -> str:
    """What the seeds of one config have in common: the other settings, and the cohort that trained them."""
    settings = {key: value for key, value in run.config.items() if key not in NOT_OF_THE_CONFIG}
    return json.dumps([settings, run.trained_on[1]], sort_keys=True, default=str)


def _refuse_copies(members: Sequence[Scored]) -> None:
    """Two runs of a group with one seed and equal ranks are one training, which must not count as two seeds."""
    for a, b in combinations(members, 2):
        if a.config.get("seed") == b.config.get("seed") and all(
            np.array_equal(getattr(a.ranked.ranks, name), getattr(b.ranked.ranks, name))
            for name in ("n_greater", "n_tied")
        ):
            raise ConfigError(
                f"runs '{a.run}' and '{b.run}' have the same settings, seed and ranks: they are one training",
                remedy="Leave one of them out",
            )


def _label(names: Sequence[str]) -> str:
    """What the names of a group's runs have in common, without the number at its end; else all of them."""
    if len(names) == 1:
        return names[0]
    alike = len(list(takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))))
    return names[0][:alike].rstrip("-_. 0123456789") or " + ".join(names)


def _known_as(cohort: tuple[str, str]) -> str:
    """Name, and the beginning of the hash: cohorts of one name may differ."""
    return f"{cohort[0]} ({cohort[1][:8]})"


def _in_order_met(patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Patients numbered by where they come first, so that two numberings of the same patients are equal."""
    _, first, inverse = np.unique(patients, return_index=True, return_inverse=True)
    numbered: NDArray[np.int64] = np.argsort(np.argsort(first))[inverse]
    return numbered
