import numpy as np

from bb3x_ray.classify.calibration import Calibration
from bb3x_ray.classify.measures import calibration_error


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = random.normal(size=n)
    return logits, (random.random(n) < 1 / (1 + np.exp(-logits))).astype(float)


def test_it_finds_the_temperature_and_the_shift() -> None:
    logits, labels = drawn(20_000, 0)
    found = Calibration.fit(logits * 3 - 1.5, labels, np.ones(20_000))
    assert abs(found.temperature - 3) < 0.2 and abs(found.shift - 0.5) < 0.05


def test_it_mends_a_model_that_is_too_sure_on_labels_it_did_not_see() -> None:
    (logits, labels), (new, new_labels) = drawn(2000, 0), drawn(2000, 1)
    found = Calibration.fit(logits * 4, labels, np.ones(2000))
    before = calibration_error(Calibration()(new * 4), new_labels)
    assert calibration_error(found(new * 4), new_labels) < 0.04 < before


def test_few_labels_move_it_little_and_none_not_at_all() -> None:
    few = Calibration.fit(np.array([3.0, -2.0]), np.array([1.0, 1.0]), np.ones(2))
    assert 0.5 < few.temperature < 2 and abs(few.shift) < 0.5
    assert Calibration.fit(np.zeros(0), np.zeros(0), np.zeros(0)) == Calibration()


def test_wrong_predictions_are_flattened_never_turned_round() -> None:
    logits, labels = drawn(500, 0)
    p = Calibration.fit(-logits, labels, np.ones(500))(np.array([-2.0, 2.0]))
    assert p[0] <= p[1] < p[0] + 0.1
