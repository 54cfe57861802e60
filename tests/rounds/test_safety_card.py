"""A safety classifier's card says of it what is true: ours was trained here, others' were only calibrated."""

from pathlib import Path

from bb3x_ray.config import SafetyConfig
from bb3x_ray.rounds.safety import make_safety, safety_card
from tests.classify.make import tiny_classifier


def test_a_classifier_of_others_was_calibrated_here_and_not_trained(tmp_path: Path) -> None:
    source = str(tiny_classifier(tmp_path))
    config = SafetyConfig(classifier=source, unsafe_labels=("toxic", "threat"), ordinary=200)
    safety = make_safety(config, 0)
    card = safety_card(safety, "v0002")
    assert f"The Hugging Face classifier `{source}`" in card and "Calibrated on" in card
    assert "recall on our own unsafe messages, on which it was calibrated |" in card
    for untrue in ("Trained on", "trained on", "out of fold", "ordinary talk. The"):
        assert untrue not in card
    assert "ordinary_examples" not in safety.about["report"]
