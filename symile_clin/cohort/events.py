"""What became of every event of a modality's table: events.csv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import pandas as pd

from symile_clin.cohort.attrition import Refused
from symile_clin.cohort.choose import index_table
from symile_clin.cohort.linking import IN_COHORT, count_linked
from symile_clin.cohort.spec import WindowSpec
from symile_clin.cohort.window import inside
from symile_clin.modalities.base import Modality
from symile_clin.modalities.linked import Linked
from symile_clin.schema import EVENT_ID, INDEX_TIME, KEY, SAMPLE_ID
from symile_clin.sources.catalog import Catalog

if TYPE_CHECKING:
    import ibis.expr.types as ir

NOT_CHOSEN: Final = "in a window, another was chosen"
SAMPLE_LEFT: Final = "in a window, its sample left"
OUTSIDE: Final = "outside every window"


def count_events(
    modality: Modality,
    window: WindowSpec | None,
    *,
    catalog: Catalog,
    index: pd.DataFrame,
    samples: pd.DataFrame,
    chosen: pd.DataFrame,
    refused: Iterable[Refused],
) -> pd.DataFrame:
    """Count each event of the modality's table once; the counts sum to the table's rows.

    An event may lie in the windows of several samples. It counts under the first that is true: not eligible, in the
    cohort, refused, in a window of a sample of the cohort, in a window of any index event, outside every window.

    Args:
        window: None for a linked modality, whose events no window may take.
        index: every index event.
        samples: those of the final cohort.
        chosen: the events that samples take; those of other samples are passed over.
        refused: of the whole build.

    Returns:
        modality, reason, events.
    """
    if isinstance(modality, Linked):
        return count_linked(modality, samples=samples, chosen=chosen, refused=refused)
    if window is None:
        raise ValueError(f"'{modality.name}' has no window")
    everything = modality.events(catalog)
    counts: dict[str, int] = {}
    by_reason = (
        everything.filter(~everything.eligible).group_by("ineligible_reason").aggregate(events=lambda t: t.count())
    )
    ineligible = catalog.frame(by_reason.order_by("ineligible_reason"))
    eligible = everything.filter(everything.eligible)
    taken = chosen.loc[chosen[SAMPLE_ID].isin(samples[SAMPLE_ID]), [EVENT_ID, KEY]].drop_duplicates()
    in_cohort = eligible.semi_join(catalog.rows(taken), [EVENT_ID, KEY])
    rest = eligible.anti_join(catalog.rows(taken), [EVENT_ID, KEY])
    counts[IN_COHORT] = _count(catalog, in_cohort)
    reasons = {one.event_id: str(one.refusal.reason) for one in refused if one.modality == modality.name}
    if reasons:
        ids = pd.DataFrame({EVENT_ID: list(reasons)})
        gone = catalog.frame(rest.semi_join(catalog.rows(ids), EVENT_ID).select(EVENT_ID))[EVENT_ID]
        rest = rest.anti_join(catalog.rows(ids), EVENT_ID)
        counts |= {f"refused: {why}": n for why, n in sorted(Counter(reasons[one] for one in gone).items())}
    eligible_rest = _count(catalog, rest)
    of_samples = _in_window(catalog, rest, samples, window)
    of_any = _in_window(catalog, rest, index[index[INDEX_TIME].notna()], window)
    counts |= {NOT_CHOSEN: of_samples, SAMPLE_LEFT: of_any - of_samples, OUTSIDE: eligible_rest - of_any}
    unfit = zip(ineligible["ineligible_reason"], ineligible["events"], strict=True)
    counts |= {f"not eligible: {reason}": int(events) for reason, events in unfit}
    return pd.DataFrame(
        [(modality.name, reason, events) for reason, events in counts.items()], columns=["modality", "reason", "events"]
    )


def _in_window(catalog: Catalog, events: ir.Table, samples: pd.DataFrame, window: WindowSpec) -> int:
    index = index_table(catalog, samples)
    condition = inside(index, events, **{name: getattr(window, name) for name in WindowSpec.model_fields})
    return _count(catalog, events.semi_join(index, condition))


def _count(catalog: Catalog, events: ir.Table) -> int:
    return int(catalog.frame(events.aggregate(events=events.count()))["events"].iloc[0])
