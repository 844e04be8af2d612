"""A run with what `eval` left of it: where the truth stood for every query, in one of the ways that it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symile_clin import files
from symile_clin.config import RunConfig, flatten
from symile_clin.data.store import open_cohort
from symile_clin.errors import MismatchError, NotFoundError
from symile_clin.evaluation.ranked import DIGESTS, ListProtocol, Ranked, read_ranked
from symile_clin.evaluation.scored_runs import Scored
from symile_clin.evaluation.seen import SEEN
from symile_clin.pipeline.runs import Run
from symile_clin.schema import EVAL_DIR, EVALUATION, METRICS, RANKS, Split
from symile_clin.strict import validate


@dataclass(frozen=True)
class Evaluated:
    """An evaluated run.

    Attributes:
        about: its evaluation.json.
    """

    run: Run
    scored: Scored
    about: Mapping[str, Any]


def open_evaluated(
    run: Run, cohort: Path | None, *, split: Split, target: str | None, protocol: ListProtocol, query: str | None
) -> Evaluated:
    """Read where the truth stood when `target` was asked for in one way.

    Args:
        cohort: directory of the cohort that the run was evaluated on; None takes the one that it was trained on.
        target: None takes the evaluation's own.
        query: names joined by "+"; None takes all modalities but the target.

    Raises:
        NotFoundError: the run was not evaluated there, or not asked in this way.
        MismatchError: damaged files.
    """
    trained_on = (str(run.manifest["cohort"]["name"]), str(run.manifest["cohort"]["hash"]))
    place, again = str(split), f"symile-clin eval {run.name} --split {split}"
    if cohort is not None:
        data = open_cohort(cohort)
        place = split if data.hash == trained_on[1] else f"{data.name}-{split}"
        again += f" --cohort {cohort}"
    directory = run.path / EVAL_DIR / place
    if not (directory / RANKS).is_file():
        where = "" if cohort is None else f" of cohort {cohort}"
        raise NotFoundError(f"run '{run.name}' was not evaluated on the {split} split{where}", remedy=f"Run {again}")
    if not (directory / EVALUATION).is_file():
        raise NotFoundError(
            f"the evaluation of run '{run.name}' on the {split} split is of an earlier version: it has no {EVALUATION}",
            remedy=f"Evaluate it again: {again}",
        )
    about, seen = _what_was_asked(directory, again=again)
    modalities = {str(about["target"]), *map(str, about["query"])}
    wanted = target or str(about["target"])
    asked_with = tuple(sorted(query.split("+") if query else modalities - {wanted}))
    try:
        found = read_ranked(directory / RANKS)
    except (ValueError, OSError, KeyError, TypeError) as error:  # Arrow's errors are of the first two kinds
        raise MismatchError(
            f"{directory / RANKS} cannot be read: {str(error).splitlines()[0]}", remedy=f"Evaluate again: {again}"
        ) from None
    chosen = [
        one for one in found if (one.target, one.protocol, tuple(sorted(one.query))) == (wanted, protocol, asked_with)
    ]
    if not chosen:
        raise _not_asked(found, run=run.name, target=wanted, protocol=protocol, query="+".join(asked_with))
    return Evaluated(
        run=run,
        scored=Scored(
            run=run.name,
            config=flatten(validate(RunConfig, run.config, source=f"the config of run '{run.name}'")),
            trained_on=trained_on,
            cohort=(str(about["cohort"]["name"]), str(about["cohort"]["hash"])),
            split=split,
            ranked=chosen[0],
            seen=int(seen.get(f"{split}/{about['target']}/{SEEN}", 0)),
        ),
        about=about,
    )


def _what_was_asked(directory: Path, *, again: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """An evaluation's evaluation.json and metrics.json.

    Raises:
        MismatchError: one of them, or ranks.parquet, is damaged.
    """
    about: Any = files.read_json(directory / EVALUATION)
    metrics: Any = files.read_json(directory / METRICS)
    try:
        _ = about["target"], about["cohort"]["name"], about["cohort"]["hash"]
        digests = dict(about.get(DIGESTS, {}))  # none in evaluations of earlier versions
        if not isinstance(about["query"], list) or not isinstance(metrics, dict):
            raise TypeError
    except (TypeError, KeyError, ValueError, AttributeError):
        raise MismatchError(f"what {directory} holds is damaged", remedy=f"Evaluate again: {again}") from None
    for name in (METRICS, RANKS):
        if name in digests and files.sha256(directory / name) != digests[name]:
            raise MismatchError(
                f"{directory / name} is not what was written there: {EVALUATION} beside it has another digest",
                remedy=f"Evaluate again: {again}",
            )
    return about, metrics


def default_way(evaluated: Evaluated) -> bool:
    """Whether the ranks are of the way whose metrics have the short names: the evaluation's own target and query."""
    ranked, about = evaluated.scored.ranked, evaluated.about
    own = (ranked.target, ranked.protocol) == (about["target"], "candidates")
    return own and sorted(ranked.query) == sorted(about["query"])


def _not_asked(found: Sequence[Ranked], *, run: str, target: str, protocol: ListProtocol, query: str) -> NotFoundError:
    """What the run was asked instead: other targets, else other lists, else other queries."""
    ways = [("--target", target, [one.target for one in found])]
    ways += [("--protocol", protocol, [one.protocol for one in found if one.target == target])]
    same = [one for one in found if (one.target, one.protocol) == (target, protocol)]
    ways += [("--query", query, ["+".join(one.query) for one in same])]
    option, wanted, there = next((way for way in ways if way[1] not in way[2]), ways[-1])
    return NotFoundError(
        f"run '{run}' has no ranks of {option} {wanted}",
        remedy=f"Choose {option} from {', '.join(dict.fromkeys(there))}",
    )
