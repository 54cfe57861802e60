import json
from pathlib import Path

from bb3x_ray.config import MetricsConfig
from bb3x_ray.metrics import Metrics


def test_numbers_are_always_written_as_lines(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, MetricsConfig(wandb="disabled"), "run")
    metrics.log("train", {"loss": 2}, round=1, step=3)
    metrics.log("score", {"auroc": 0.5}, round=1)
    metrics.finish()
    first, second = (json.loads(line) for line in metrics.path.read_text().splitlines())
    assert (first["room"], first["round"], first["step"], first["loss"]) == ("train", 1, 3, 2.0)
    assert second["auroc"] == 0.5
