"""The card of an exported model: what it was trained on, what was measured, what it is for and what it is not for.

Source: Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, whose headings it follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_METRICS = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "mean_rank")


def model_card(
    *,
    name: str,
    settings: Mapping[str, Any],
    modalities: Mapping[str, Mapping[str, Any]],
    cohort: Mapping[str, Any],
    best: Mapping[str, Any],
    evaluations: Mapping[str, tuple[Mapping[str, Any], Mapping[str, float]]],
    files: Sequence[str],
) -> str:
    """The card as Markdown.

    Args:
        name: of the run.
        settings: its resolved config, plain.
        modalities: the cohort spec's, by name.
        cohort: name, hash, synthetic, samples and patients of each split.
        best: epoch and validation metrics of the checkpoint.
        evaluations: by split evaluation.json and metrics.json.
        files: names of the exported files.
    """
    whose = "synthetic patients" if cohort["synthetic"] else "patients of MIMIC"
    objective = settings["objective"]["name"]
    parts = [
        _front_matter(objective, modalities),
        f"# {name}\n\nEncoders of {_words(modalities)} into one space of {settings['model']['dim']} dimensions, "
        f"trained with `{objective}` on {whose} by symile-clin.",
        _use(name, modalities),
        _intended(synthetic=bool(cohort["synthetic"])),
        _data(cohort, modalities),
        _training(settings, best),
        *[_results(split, *found) for split, found in evaluations.items()],
        "" if evaluations else "## Results\n\nNot evaluated when it was exported.",
        _limits(synthetic=bool(cohort["synthetic"])),
        "## Files\n\n" + "\n".join(f"- `{file}`" for file in files),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(objective: str, modalities: Mapping[str, Any]) -> str:
    tags = "\n".join(f"- {tag}" for tag in ("medical", "multimodal", "contrastive", objective, *modalities))
    return f"---\nlibrary_name: symile-clin\nlicense: other\ntags:\n{tags}\n---"


def _use(name: str, modalities: Mapping[str, Any]) -> str:
    asked = ", ".join(f'"{one}": "path"' for one in modalities)
    return (
        "## Use\n\n```python\nimport symile_clin\n\n"
        f'model = symile_clin.load("{name}")  # this folder\n'
        f"vectors = model.embed({{{asked}}})  # name -> (1, dim); any of them may be left out\n```\n\n"
        "Files are read by the rules of the cohort: see docs/search.md of symile-clin for their formats. "
        "`model.score(queries, candidates, target=...)` scores as in training; "
        "`queries` are all modalities but the target."
    )


def _intended(*, synthetic: bool) -> str:
    if synthetic:
        return (
            "## Intended use\n\nTrying the toolkit out. The patients are made up: the model knows nothing of real "
            "ones, and no number of it says anything about medicine."
        )
    return (
        "## Intended use\n\nResearch on what modalities tell of each other: retrieval, probes, information. "
        "It is no medical device, and no decision about a patient may rest on it.\n\n"
        "It was derived from credentialed data. The PhysioNet Credentialed Health Data Use Agreement covers what is "
        "derived, too: share it with people who have signed it, through PhysioNet. `state/` holds distributions of "
        "values measured in the train split."
    )


def _data(cohort: Mapping[str, Any], modalities: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"| {split} | {n:,} | {patients:,} |" for split, (n, patients) in cohort["splits"].items()]
    inputs = [f"- **{name}**: {_settings(entry)}" for name, entry in modalities.items()]
    return "\n".join(
        [
            "## Data\n",
            f"Cohort `{cohort['name']}` (content hash `{str(cohort['hash'])[:12]}`).\n",
            "| split | samples | patients |\n|---|---|---|",
            *lines,
            "",
            *inputs,
        ]
    )


def _training(settings: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    lines = [f"- **{part}**: {_settings(settings[part])}" for part in ("objective", "training")]
    encoders = [f"- **encoder of {name}**: {_settings(entry)}" for name, entry in settings["model"]["encoders"].items()]
    validated = {name: value for name, value in best["metrics"].items() if name.startswith("val/")}
    chosen = f"Seed {settings['seed']}; the checkpoint of epoch {best['epoch']} was the best on the val split"
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in sorted(validated.items()))
    return "\n".join(["## Training\n", f"{chosen}{f' ({numbers})' if numbers else ''}.\n", *lines, *encoders])


def _results(split: str, what: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    target = what["target"]
    prefix = f"{split}/{target}/"
    rows = []
    for metric in _METRICS:
        value = metrics.get(prefix + metric)
        if value is not None:
            low, high = metrics[f"{prefix}{metric}_ci_low"], metrics[f"{prefix}{metric}_ci_high"]
            rows.append(
                f"| {metric} | {value:.3f} | [{low:.3f}, {high:.3f}] | {metrics[f'{prefix}{metric}_chance']:.3f} |"
            )
    baseline = metrics.get(f"{prefix}candidates/demographics/recall_at_1")
    beside = (
        "\n\nOne who knows only sex, age band and view of query and candidates reaches recall_at_1 "
        f"{baseline:.3f} on the same lists."
        if baseline is not None
        else ""
    )
    gaps = [
        f"- {name.removeprefix(f'{prefix}gap/').removesuffix('/recall_at_1')}: {value:.3f} "
        f"[{metrics[f'{name}_ci_low']:.3f}, {metrics[f'{name}_ci_high']:.3f}]"
        for name, value in metrics.items()
        if name.startswith(f"{prefix}gap/") and name.endswith("/recall_at_1")
    ]
    unfair = "\n\nLargest difference of recall_at_1 between groups of patients (95 % interval):\n\n" + "\n".join(gaps)
    return (
        f"## Results: {split} split of {what['cohort']['name']}\n\n"
        f"{target} retrieved from {' + '.join(what['query'])}, {metrics[f'{prefix}recall_at_1_n']:,.0f} queries of "
        f"{metrics[f'{prefix}recall_at_1_n_subjects']:,.0f} patients, over fixed candidate lists.\n\n"
        "| metric | value | 95 % interval over patients | chance |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + beside
        + (unfair if gaps else "")
    )


def _limits(*, synthetic: bool) -> str:
    common = (
        "Intervals are over patients of one split: another training run, another draw of candidate lists and another "
        "hospital are not in them. Who lacks an examination is not drawn at random."
    )
    real = (
        " One hospital's patients, 2011 to 2016, admitted and examined as its doctors saw fit; ages of 91 stand for "
        "everybody over 89; clocks of bedside machines are not synchronised with the "
        "hospital's."
    )
    return f"## Limits\n\n{common}{'' if synthetic else real}"


def _words(names: Mapping[str, Any]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
