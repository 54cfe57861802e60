"""What there is to tell of versions of the chat model: where each came from, and what became of it."""

import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bb3x_ray.registry import Promotion, Registry, Rollback
from bb3x_ray.rounds.canary import END, STATE
from bb3x_ray.rounds.verdicts import find_verdict, verdict_of
from bb3x_ray.schemas.canary import Canary
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import Storage, read_json


@dataclass(frozen=True, slots=True)
class About:
    """A version; `aliases` of champion, challenger, previous; `state` in a word or two."""

    version: str
    aliases: tuple[str, ...]
    state: str
    origin: str
    lineage: dict[str, Any]
    verdict: Verdict | None = None
    canary: Canary | None = None
    quarantine: dict[str, Any] = field(default_factory=dict)


def about(storage: Storage, version: str) -> About:
    """Raises UserError where there is no such version."""
    models, verdict = Registry(storage, "models"), find_verdict(storage, version)
    named = {"champion": models.alias("champion"), "challenger": models.challenger}
    named["previous"] = models.alias("previous")
    lineage = models.lineage(version)
    return About(
        version,
        tuple(name for name, of in named.items() if of == version),
        _state(models, version, lineage, verdict),
        _origin(lineage),
        lineage,
        verdict,
        find_canary(storage, version),
        models.quarantine(version) if models.is_quarantined(version) else {},
    )


def find_canary(storage: Storage, version: str) -> Canary | None:
    """How a version's canary ended, else where it stands; None where there was none, or nobody looked."""
    for name in (END, STATE):
        path = storage.path("canaries", version, name)
        if path.is_file():
            return Canary.from_dict(read_json(path))
    return None


def _state(models: Registry, version: str, lineage: dict[str, Any], verdict: Verdict | None) -> str:
    if models.is_quarantined(version):
        return "quarantine"
    if version == models.alias("champion"):
        return "champion"
    if version == models.challenger:
        return "canary"
    if any(move["version"] == version for move in models.history()):
        return "was champion"
    if "control" in lineage:
        return "control, never served"
    if verdict is None:
        return "not judged yet" if "round" in lineage else "imported"
    return "passed, not promoted" if verdict.passed else "rejected"


def _origin(lineage: dict[str, Any]) -> str:
    origin = str(lineage.get("source"))
    if "control" in lineage:
        origin = f"{lineage['parent']} with {lineage['control']}"
    elif "round" in lineage:
        origin = f"round {lineage['round']} from {lineage['parent']}"
    return f"{origin}, an adapter on {lineage['base']}" if "base" in lineage else origin


def table_of(storage: Storage) -> Table:
    """All versions."""
    table = Table("version", "aliases", "state", "from", "verdict", "canary")
    for version in Registry(storage, "models").versions():
        one = about(storage, version)
        verdict = "" if one.verdict is None else ("passed" if one.verdict.passed else "rejected")
        canary = "" if one.canary is None else one.canary.decision
        cells = (version, ", ".join(one.aliases), one.state, one.origin, verdict, canary)
        table.add_row(*map(escape, cells))
    return table


def show(storage: Storage, version: str, console: Console) -> None:
    """Card, lineage, verdict, canary, quarantine."""
    one = about(storage, version)
    card = storage.path("models", version, "README.md")
    console.print(f"[bold]{version}[/bold]  {one.state}  {escape(one.origin)}")
    if card.is_file():
        console.print(card.read_text(encoding="utf-8").strip(), markup=False)
    console.print("\n[bold]Lineage[/bold]")
    for name, value in sorted(one.lineage.items()):
        if not isinstance(value, dict | list):
            console.print(f"{name}: {value}", markup=False)
    if one.verdict is not None:
        console.print("\n[bold]Verdict[/bold]")
        console.print(one.verdict.words, markup=False)
        for gate in one.verdict.gates:
            passed = "passed" if gate.passed else "failed"
            console.print(f"{gate.name}: {passed}, {gate.value:.3f} (limit {gate.limit:.3f})", markup=False)
    if one.canary is not None:
        console.print("\n[bold]Canary[/bold]")
        console.print(f"{one.canary.decision}: {one.canary.words}", markup=False)
        console.print(arms_table(one.canary))
    if one.quarantine:
        at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.quarantine["at"]))
        console.print("\n[bold]Quarantine[/bold]")
        console.print(f"since {at}: {one.quarantine['reason']}", markup=False)
        console.print(f"learned from: {one.quarantine['slice'] or 'no round'}", markup=False)


def arms_table(canary: Canary) -> Table:
    """What was seen of both versions."""
    arms = [canary.numbers.get("champion", {}), canary.numbers.get("candidate", {})]
    table = Table("", canary.champion, canary.candidate)
    for name in dict.fromkeys(name for arm in arms for name in arm):
        table.add_row(
            name.replace("_", " "), *("" if name not in arm else f"{arm[name]:.4g}" for arm in arms)
        )
    return table


# Moves by hand


def promote(storage: Storage, version: str, reason: str) -> str:
    """Make a version that passed its verdict champion; returns what to say.

    reason   needed to end a canary of it that people have not decided yet
    Raises UserError for one that has no verdict, was rejected, or was judged against another champion.
    """
    models, verdict = Registry(storage, "models"), verdict_of(storage, version)
    if not verdict.passed:
        failed = ", ".join(gate.name for gate in verdict.gates if not gate.passed) or "its gates"
        raise UserError(f"{version} was rejected ({failed}): only what passed can become champion.")
    champion = models.champion
    if champion == version:
        return f"{version} is champion already"
    if champion != verdict.champion:
        raise UserError(
            f"{version} was judged against {verdict.champion}, and the champion is {champion} by now: a "
            "round has to judge it anew."
        )
    canary = None
    if models.challenger == version:
        if not reason:
            raise UserError(
                f"a canary of {version} is under way, people have not decided yet: give --reason to end it."
            )
        canary = Canary(version, champion, "promote", f"ended by hand: {reason}")
    models.folder(version)  # refused here, in a sentence, rather than by every replica
    models.move_champion(Promotion(verdict, canary), expected=champion)
    return f"{version} is champion; a running server takes it up by itself"


def roll_back(storage: Storage, reason: str, champion: bool = False) -> str:
    """End the canary that is under way, else go back to the previous champion; returns what to say.

    champion   the champion goes back though a canary is under way; that ends, too
    What was rolled back is in quarantine. Raises UserError where there is nothing to go back to.
    """
    if not reason.strip():
        raise UserError("a rollback needs --reason: it stays with the version.")
    models = Registry(storage, "models")
    challenger = models.challenger
    if challenger is not None and not champion:
        models.move_challenger(Rollback(reason), expected=challenger)
        return f"the canary of {challenger} is over and {challenger} in quarantine; {models.champion} stays"
    before = models.champion
    now = models.move_champion(Rollback(reason), expected=before)
    return f"{now} is champion again and {before} in quarantine; a running server takes it up by itself"


def damages(storage: Storage, versions: list[str]) -> list[str]:
    """A sentence for each version that cannot be used, of these or of all."""
    models, found = Registry(storage, "models"), []
    for version in versions or models.versions():
        try:
            models.folder(version)
        except UserError as error:
            found.append(str(error))
    return found
