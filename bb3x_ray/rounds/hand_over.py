"""From a verdict to a champion that answers: at once, or by a canary."""

from collections.abc import Callable
from typing import Protocol

from bb3x_ray.registry import Promotion, Registry
from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict


class Server(Protocol):
    """What a round needs of the server: where it is, and that it answers with another version from now on."""

    @property
    def url(self) -> str: ...

    def swap(self, version: str) -> None: ...


def hand_over(
    plan: RoundPlan,
    verdict: Verdict,
    models: Registry,
    server: Server | None,
    begin: Callable[[Verdict], str] | None = None,
) -> str:
    """Move the champion and let the server answer with it, if the verdict says so. Returns what happened.

    The alias moves first, because a replica that starts now reads it; asked again after a kill in between,
    both are done once. Raises UserError for a verdict about other versions than the plan's.

    begin   begins a canary instead; the server finds the challenger by itself
    """
    if (verdict.candidate, verdict.champion) != (plan.candidate, plan.champion):
        raise UserError(f"{plan.name}/evaluate holds a verdict about {verdict.candidate}: restore it.")
    if not verdict.passed:
        return f"{plan.champion} stays"
    now = models.champion
    if now not in (plan.champion, plan.candidate):
        # Somebody rolled back or promoted meanwhile: what it was compared with is gone.
        return f"the champion is {now} by now, {plan.candidate} is superseded"
    if begin is not None and now == plan.champion:
        return begin(verdict)
    models.move_champion(Promotion(verdict), expected=plan.champion)
    if server is None:
        return f"{plan.candidate} is champion; a running server takes it up by itself"
    server.swap(plan.candidate)
    return f"{plan.candidate} answers from now on"


def require_sound_parent(plan: RoundPlan, models: Registry) -> None:
    """Raise UserError where the champion that the round was planned with was put into quarantine since."""
    if models.is_quarantined(plan.champion):
        raise UserError(
            f"{plan.name} was planned to train from {plan.champion}, which is in quarantine "
            f"({models.quarantine(plan.champion)['reason']}): remove {plan.name}, and the next run plans it "
            "anew."
        )
