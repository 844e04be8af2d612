"""Which event of its window each sample takes: down the ranks, until one is valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from symile_clin.cohort.answers import Answers
from symile_clin.cohort.attrition import Attrition
from symile_clin.cohort.opening import ask_valid, died, identify
from symile_clin.cohort.refusals import RefusalLimit
from symile_clin.cohort.spec import ModalitySpec
from symile_clin.cohort.window import rank_events, without_repeats
from symile_clin.cohort.workers import Mapper
from symile_clin.modalities.base import Modality, Refusal, Row
from symile_clin.schema import EVENT_ID, EVENT_TIME, INDEX_TIME, KEY, RANK, SAMPLE_ID, SUBJECT_ID
from symile_clin.sources.catalog import Catalog

if TYPE_CHECKING:
    import ibis.expr.types as ir

#: Answers are kept this often: a build that is killed asks so many again.
KEEP_EVERY: Final = 5000
NO_EVENT: Final = "no event in the window"
#: Between the ids of an index event and of the event that makes a sample of it.
BETWEEN: Final = "/"
#: The index event's id, where events make samples.
OF: Final = "of"


@dataclass
class Chosen:
    """The events that samples take of one modality.

    Attributes:
        events: one row per sample (and key): sample_id, event columns and payload.
        reasons: why other samples take none, by sample_id.
    """

    events: pd.DataFrame
    reasons: dict[str, str]


class Chooser:
    """Takes events of one modality for the samples that are still in.

    The interval join runs once, in the engine; events come out rank by rank, only for samples that still need one.
    """

    def __init__(
        self,
        modality: Modality,
        spec: ModalitySpec,
        *,
        catalog: Catalog,
        source: Path | None,
        samples: pd.DataFrame,
        attrition: Attrition,
        answers: Answers,
        workers: Mapper,
        max_refused: float,
    ) -> None:
        self._modality, self._catalog, self._source = modality, catalog, source
        self._attrition, self._answers, self._workers = attrition, answers, workers
        self._limit = RefusalLimit(modality.name, "looked at", share=max_refused, attrition=attrition)
        events = modality.events(catalog)
        events = events.filter(events.eligible).drop("eligible", "ineligible_reason")
        window = spec.window
        if window is None or spec.take is None:
            raise ValueError(f"'{modality.name}' has no window")
        ranked = rank_events(
            index_table(catalog, samples),
            events,
            start=window.start,
            end=window.end,
            include_start=window.include_start,
            include_end=window.include_end,
            take="earliest" if spec.take == "all" else spec.take,
        )
        if spec.take == "all":
            ranked = _each_a_sample(without_repeats(ranked))
        self._ranked: ir.Table = catalog.keep(f"ranked_{modality.name}", ranked)

    def in_window(self) -> set[str]:
        """Samples with any event in their window, valid or not."""
        return set(self._at(1)[SAMPLE_ID])

    def parts(self) -> pd.DataFrame:
        """Where every event makes a sample: sample_id and `of`, the index event's; the earliest event first."""
        made = self._ranked.select(SAMPLE_ID, OF, EVENT_TIME, EVENT_ID).order_by([OF, EVENT_TIME, EVENT_ID])
        return self._catalog.frame(made)[[SAMPLE_ID, OF]]

    def first(self, samples: pd.DataFrame) -> Chosen:
        """The first valid event of every sample (and key) among `samples`."""
        offered = self._at(1)
        wanted = _pairs(offered[offered[SAMPLE_ID].isin(samples[SAMPLE_ID])])
        chosen = self._down_from(1, wanted)
        taken = set(chosen.events[SAMPLE_ID])
        reasons = dict.fromkeys(samples[SAMPLE_ID], NO_EVENT) | chosen.reasons
        return Chosen(chosen.events, {sample: why for sample, why in reasons.items() if sample not in taken})

    def after(self, rejected: pd.DataFrame) -> Chosen:
        """The next valid event after each of `rejected`, which `first` or `after` gave."""
        ranks = sorted({int(rank) for rank in rejected[RANK]})
        parts = [self._down_from(rank + 1, _pairs(rejected[rejected[RANK] == rank])) for rank in ranks]
        events = pd.concat([part.events for part in parts], ignore_index=True)
        return Chosen(events, {sample: why for part in parts for sample, why in part.reasons.items()})

    def level_with(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """Events of the window at the very time of the `chosen` one of their sample and key; only ids kept them out."""
        own = self._catalog.rows(chosen[[SAMPLE_ID, KEY, EVENT_TIME, EVENT_ID]].rename(columns={EVENT_ID: "taken"}))
        level = self._ranked.inner_join(own, [SAMPLE_ID, KEY, EVENT_TIME])
        others = level.filter(level[EVENT_ID] != level["taken"]).drop("taken")
        return self._catalog.frame(others.order_by([SAMPLE_ID, KEY, RANK]))

    def _down_from(self, rank: int, wanted: pd.MultiIndex) -> Chosen:
        """Ask for validity from `rank` downwards, for the `wanted` samples and keys.

        A sample whose events run out keeps the reason of the last one.
        """
        taken = [self._at(0)]  # there is no rank 0: the columns of an empty answer
        reasons: dict[str, str] = {}
        while len(wanted):
            offered = self._at(rank)
            offered = offered[_pairs(offered).isin(wanted)].reset_index(drop=True)
            if offered.empty:
                break
            refusals = self._ask(offered)
            for row, refusal in zip(records(offered), refusals, strict=True):
                if refusal is not None:
                    self._attrition.refuse(self._modality.name, row, refusal)
                    reasons[row[SAMPLE_ID]] = str(refusal.reason)
            taken.append(offered[[refusal is None for refusal in refusals]])
            wanted = _pairs(offered[[refusal is not None and refusal.then == "next" for refusal in refusals]])
            rank += 1
        return Chosen(pd.concat(taken, ignore_index=True), reasons)

    def _at(self, rank: int) -> pd.DataFrame:
        return self._catalog.frame(self._ranked.filter(self._ranked[RANK] == rank).order_by([SAMPLE_ID, KEY]))

    def _ask(self, offered: pd.DataFrame) -> Sequence[Refusal | None]:
        if self._modality.reads_from is None:
            return [None] * len(offered)
        rows = records(offered)
        ask = partial(ask_valid, self._modality, self._source)
        if self._source is None:  # only the rows can speak, and they are asked at no cost
            return list(self._workers.map(ask, rows))
        keys = list(self._workers.map(partial(identify, self._modality, self._source), rows))
        known = self._answers.find(keys)
        # the same record may lie in the windows of several samples
        row_of = dict(zip(keys, rows, strict=True))
        new = {key: row for key, row in row_of.items() if key not in known}
        self._limit.expect(len(row_of))
        self._count(known, row_of, known)
        answers = self._workers.map(ask, list(new.values()), died=partial(died, "next"))
        asked = zip(new, answers, strict=True)
        while some := dict(islice(asked, KEEP_EVERY)):
            self._answers.keep(some)
            known |= some
            self._count(some, row_of, known)
        return [known[key] for key in keys]

    def _count(
        self, new: Mapping[str, Refusal | None], row_of: Mapping[str, Row], known: Mapping[str, Refusal | None]
    ) -> None:
        """Count new answers, and end the build where too many are refusals.

        Args:
            known: all answers to this question so far, for the books of a build that ends here.

        Raises:
            TooManyRefusedError: they are.
        """
        for answer in new.values():
            self._limit.count(answer)
        if self._limit.exceeded:
            for key, answer in known.items():
                if answer is not None:
                    self._attrition.refuse(self._modality.name, row_of[key], answer)
            self._limit.stop_if_exceeded()


def index_table(catalog: Catalog, samples: pd.DataFrame) -> ir.Table:
    """Samples as the engine's table: sample_id, subject_id, index_time."""
    return catalog.rows(samples[[SAMPLE_ID, SUBJECT_ID, INDEX_TIME]])


def records(events: pd.DataFrame) -> list[dict[str, Any]]:
    """Events as rooms take them: one mapping of column to value each."""
    rows: list[Any] = events.to_dict("records")
    return rows


def _each_a_sample(ranked: ir.Table) -> ir.Table:
    """Ranked events as the only ones of samples of their own, called `<index event>/<event>`."""
    own = ranked[SAMPLE_ID] + BETWEEN + ranked[EVENT_ID].cast("string")
    return ranked.mutate(**{OF: ranked[SAMPLE_ID], SAMPLE_ID: own, RANK: ranked[RANK] * 0 + 1})


def _pairs(events: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(events[[SAMPLE_ID, KEY]])
