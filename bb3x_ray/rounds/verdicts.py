"""The verdict of a version, where the round that trained it left one."""

from bb3x_ray.registry import Registry
from bb3x_ray.rounds.ledger import Ledger
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.schemas.learning import Verdict
from bb3x_ray.storage import Storage, read_json


def find_verdict(storage: Storage, version: str) -> Verdict | None:
    """None for a version that no round trained, or that was not judged yet. Raises UserError for an altered
    one and for one about another version."""
    models, ledger = Registry(storage, "models"), Ledger(storage)
    if not models.is_published(version):
        raise UserError(f"there is no {version}: `bb3x models list` shows which there are.")
    number = models.lineage(version).get("round")
    if number is None or not ledger.is_done(f"rounds/{number:04d}", "evaluate"):
        return None
    folder = ledger.folder(f"rounds/{number:04d}", "evaluate")
    verdict = Verdict.from_dict(read_json(folder / "verdict.json"))
    if verdict.candidate != version:
        raise UserError(f"{folder} holds a verdict about {verdict.candidate}, not {version}: restore it.")
    return verdict


def verdict_of(storage: Storage, version: str) -> Verdict:
    """Raises UserError where there is none."""
    verdict = find_verdict(storage, version)
    if verdict is None:
        raise UserError(
            f"{version} has no verdict: only what a round trained and judged can become champion."
        )
    return verdict
