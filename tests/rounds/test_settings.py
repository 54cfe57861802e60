"""A step that is done keeps its settings; who changed them since is told."""

from pathlib import Path

from bb3x_ray.config import Config, CurateConfig, MetricsConfig
from bb3x_ray.evaluate.prompts import PromptSets
from bb3x_ray.metrics import Metrics
from bb3x_ray.rounds.material import Material
from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.rounds.steps import RoundSteps
from bb3x_ray.storage import Storage

PLAN = RoundPlan(1, 1, "v0001", "v0002", 0)


def steps(storage: Storage, folder: Path, config: Config, said: list[str]) -> RoundSteps:
    metrics = Metrics(folder, MetricsConfig(wandb="disabled"), "test")
    return RoundSteps(storage, config, Material({}, PromptSets((), ())), metrics, None, said.append)


def test_settings_that_came_too_late_are_told(storage: Storage, tmp_path: Path) -> None:
    said: list[str] = []
    before = steps(storage, tmp_path, Config(), said)
    with before.ledger.publish(PLAN.name, "curate", settings=before._settings("curate", "reward")) as folder:
        (folder / "report.json").write_text("{}")
    before._tell_other_settings(PLAN, "curate", "curate", "reward")
    assert said == []
    later = steps(storage, tmp_path, Config(curate=CurateConfig(human_rows=5)), said)
    later._tell_other_settings(PLAN, "curate", "curate", "reward")
    (line,) = said
    assert line.startswith("curate: curate.human_rows differ from what rounds/0001/curate was made with")
