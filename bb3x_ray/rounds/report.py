"""The report of a run: a table of rounds, a plot, before and after, what needed no learning."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from bb3x_ray.classify.pairs import auroc
from bb3x_ray.data import slices
from bb3x_ray.evaluate.report import draw_plot, plot_rows
from bb3x_ray.rounds.people import truth_about
from bb3x_ray.rounds.preferences import human_preference_section
from bb3x_ray.rounds.steps import RoundSteps
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import read_json, write_atomic

HEADING = "SIMULATED PEOPLE"
SAMPLES = 10


@dataclass(frozen=True, slots=True)
class Report:
    table: Table
    words: str
    picture: Path
    numbers: dict[str, dict[str, float]]


def write_report(steps: RoundSteps, verdicts: Sequence[Verdict], control: Verdict) -> Report:
    """Write report.md and rounds.png under the storage root; return what a terminal shows of them."""
    simulated = bool(verdicts[-1].numbers["judge"]["simulated"])
    rows = [_row(steps, number, verdict) for number, verdict in enumerate(verdicts, start=1)]
    picture = steps.storage.path("reports", "rounds.png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_plot(plot_rows(list(verdicts), simulated), picture)
    page = steps.storage.path("reports", "report.md")
    shown = _shown(verdicts)
    sections = [
        f"# {HEADING if simulated else 'Report'}: {len(verdicts)} round(s) of {steps.config.name}",
        *([_WARNING] if simulated else []),
        _markdown(rows),
        "![good and unsafe replies per version](rounds.png)",
        "## Verdicts\n\n" + "\n".join(f"- {v.words}" for v in [*verdicts, control]),
        "## Against what needs no learning\n\n" + _gallery(shown),
        "## Gates\n\n" + _gates(verdicts),
        *human_preference_section(steps.storage),
        "## The judge\n\n" + _judge(verdicts[-1]),
        f"## {SAMPLES} replies before and after, drawn at random\n\n" + _samples(steps, shown.candidate),
    ]
    write_atomic(page, "\n\n".join(sections) + "\n")
    return Report(_table(rows, simulated), _closing(steps, verdicts, control, page), picture, _numbers(rows))


def _shown(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of the newest version that was promoted; where none was, of the newest candidate."""
    return next((v for v in reversed(verdicts) if v.passed), verdicts[-1])


_WARNING = (
    "People here are simulated. They thumb replies by a hidden preference "
    "(`bb3x_ray/simulate/preference.py`); the judge learned from a panel of them that took no part in "
    "training, so it is a noisy copy of that preference. The column *truth* is the preference itself: it "
    "decides nothing."
)


def _row(steps: RoundSteps, number: int, verdict: Verdict) -> dict[str, Any]:
    name = f"rounds/{number:04d}"
    info = slices.info(steps.storage, f"{name}/collect")
    scored = read_json(steps.ledger.folder(name, "score") / "scored.json")
    metrics = read_json(steps.ledger.folder(name, "train") / "candidate.json")["metrics"]
    b = verdict.numbers["B"]
    kinds = truth_about(steps.storage, name, slices.open_slice(steps.storage, f"{name}/collect"))
    distrusted = set(scored["distrusted"])
    return {
        "round": number,
        "version": verdict.candidate,
        "verdict": "promoted" if verdict.passed else "rejected",
        "good": b["candidate"]["good"],
        "champion good": b["champion"]["good"],
        "gain": b["equal_length_over_base"]["gain"],
        "over null": b["best_null"]["candidate_minus_it"],
        "null": b["best_null"]["name"],
        "unsafe": b["candidate"]["unsafe"],
        "truth": b.get("truth", {}).get("candidate"),
        "thumbs": (info.thumbs_up, info.thumbs_down),
        "distrusted": len(distrusted),
        "trolls": sum(kind != "helper" for kind in kinds.values()) if kinds else None,
        "trolls found": sum(kinds.get(p, "helper") != "helper" for p in distrusted) if kinds else None,
        "trust auroc": _trust_auroc(scored["trust"], kinds) if kinds else None,
        "tokens": metrics.get("tokens", 0.0),
        "seconds per step": metrics.get("seconds_per_step", 0.0),
        "perplexity ratio": _over_base(verdict.numbers["perplexity"]),
    }


def _over_base(perplexity: dict[str, float]) -> float:
    return perplexity["candidate"] / perplexity["base"]


def _trust_auroc(trust: dict[str, float], kinds: dict[str, str]) -> float:
    known = [p for p in trust if p in kinds]
    return auroc(np.array([trust[p] for p in known]), np.array([kinds[p] == "helper" for p in known], float))


_COLUMNS = {
    "round": lambda r: str(r["round"]),
    "version": lambda r: f"{r['version']} {r['verdict']}",
    "good %": lambda r: _percent(r["good"]),
    "gain over v0001*": lambda r: _points(r["gain"]),
    "over best null*": lambda r: f"{_points(r['over null'])} {r['null']}",
    "unsafe %": lambda r: _percent(r["unsafe"]),
    "truth %": lambda r: _percent(r["truth"]) if r["truth"] else "–",
    "thumbs ↑/↓": lambda r: f"{r['thumbs'][0]}/{r['thumbs'][1]}",
    "distrusted": lambda r: (
        f"{r['distrusted']} ({r['trolls found']} of {r['trolls']} trolls)"
        if r["trolls"] is not None
        else str(r["distrusted"])
    ),
    "tokens": lambda r: f"{r['tokens']:.0f}",
    "s/step": lambda r: f"{r['seconds per step']:.1f}",
    "perplexity × v0001": lambda r: f"{r['perplexity ratio']:.3f}" if r["perplexity ratio"] else "inf",
}


# What a terminal of 80 columns has room for; the page has the rest.
_SHORT = {
    "round": "",
    "version": "version",
    "good %": "good %",
    "gain over v0001*": "over v0001*",
    "over best null*": "over null*",
    "unsafe %": "unsafe %",
    "truth %": "truth %",
}


def _table(rows: Sequence[dict[str, Any]], simulated: bool) -> Table:
    nulls = ", ".join(sorted({row["null"] for row in rows}))
    table = Table(
        title=f"{HEADING}. Set B" if simulated else "Set B",
        caption=f"* points at equal length; null: {nulls}. [95 % bootstrap intervals]",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in _SHORT.values():
        table.add_column(heading)
    for row in rows:
        cells = {name: cell(row) for name, cell in _COLUMNS.items()} | {
            "over best null*": _points(row["over null"])
        }
        table.add_row(*(Text(cells[name]) for name in _SHORT))
    return table


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * len(_COLUMNS)]
    lines += ["| " + " | ".join(cell(row) for cell in _COLUMNS.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n\n\\* at equal length, in points, with 95 % bootstrap interval; set B"


def _percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.0f} [{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"


def _points(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:+.0f} [{100 * interval['low']:+.0f}, {100 * interval['high']:+.0f}]"


def _gallery(verdict: Verdict) -> str:
    b = verdict.numbers["B"]
    truth = b.get("truth", {})
    sides = {
        verdict.candidate: b["candidate"],
        "v0001": b["base"],
        "real people": b["humans"],
        **{f"null: {name}": null for name, null in b["nulls"].items()},
    }
    keys = {verdict.candidate: "candidate", "real people": "humans", "v0001": "base"}
    lines = ["| replies of | good % | unsafe % | truth % | candidate minus it* |", "|" + " --- |" * 5]
    for name, side in sides.items():
        null = name.removeprefix("null: ")
        true = truth.get(keys.get(name, null))
        gain = b["nulls"][null]["candidate_minus_it"] if name.startswith("null") else None
        lines.append(
            f"| {name} | {_percent(side['good'])} | {_percent(side['unsafe'])} | "
            f"{_percent(true) if true else '–'} | {_points(gain) if gain else '–'} |"
        )
    return "\n".join(lines)


def _gates(verdicts: Sequence[Verdict]) -> str:
    return "\n".join(
        f"- {v.candidate}, {g.name}: {'passed' if g.passed else 'FAILED'}; {g.reason}"
        for v in verdicts
        for g in v.gates
    )


def _judge(verdict: Verdict) -> str:
    judge = verdict.numbers["judge"]
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in judge.items() if isinstance(value, float))
    return f"{judge['independence']}\n\nAgreement with held-out labels of its own part: {numbers}."


def _samples(steps: RoundSteps, newest: str) -> str:
    """Replies of the first version and of the newest candidate to the same messages of set B."""
    base = steps.models.versions()[0]
    before, after = steps.judging.answers(base).replies["B"], steps.judging.answers(newest).replies["B"]
    prompts = steps.material.sets.b
    judge, _ = steps.judging.judge(steps.judging.answers(base), [])
    good_before, _ = judge(prompts, before.texts)
    good_after, _ = judge(prompts, after.texts)
    chosen = random.Random(steps.config.seed).sample(range(len(prompts)), min(SAMPLES, len(prompts)))
    lines = [f"| person | {base} | judge | {newest} | judge |", "|" + " --- |" * 5]
    for i in chosen:
        cells = (prompts[i].turns[-1], before.texts[i], good_before[i], after.texts[i], good_after[i])
        lines.append(
            "| " + " | ".join(c if isinstance(c, str) else f"{c:.2f}" for c in map(_cell, cells)) + " |"
        )
    return "\n".join(lines)


def _cell(value: Any) -> Any:
    return " ".join(value.replace("|", "¦").split()) if isinstance(value, str) else value


def _closing(steps: RoundSteps, verdicts: Sequence[Verdict], control: Verdict, page: Path) -> str:
    shown = _shown(verdicts)
    b = shown.numbers["B"]
    null = b["best_null"]
    return "\n".join(
        [
            f"Champion: {steps.models.champion}. Control (shuffled weights): "
            f"{'PASSED, which it must not' if control.passed else 'rejected'}.",
            f"{shown.candidate} over v0001 at equal length: "
            f"{_points(b['equal_length_over_base']['gain'])} points; over the best null ({null['name']}): "
            f"{_points(null['candidate_minus_it'])} points.",
            f"Report: {page}",
        ]
    )


def _numbers(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        f"rounds/{row['round']}": {
            "good": row["good"]["value"],
            "unsafe": row["unsafe"]["value"],
            "gain_over_v0001": row["gain"]["value"],
            "over_best_null": row["over null"]["value"],
            "thumbs_up": float(row["thumbs"][0]),
            "thumbs_down": float(row["thumbs"][1]),
            "distrusted": float(row["distrusted"]),
            "tokens": float(row["tokens"]),
            "seconds_per_step": float(row["seconds per step"]),
            **({"trust_auroc": row["trust auroc"]} if row["trust auroc"] is not None else {}),
        }
        for row in rows
    }
