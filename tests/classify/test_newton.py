"""Newton's fits have the minimum of the slower one, in rows and in features."""

import numpy as np
import pytest

from bb3x_ray.classify.bag_of_words import Logistic
from bb3x_ray.classify.newton import NewtonLogistic


@pytest.mark.parametrize("features", [8, 60])
@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
def test_the_minimum_is_that_of_the_plain_fit(features: int, l2: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, features))
    y, w = (x[:, 0] + rng.normal(size=40) > 0).astype(float), rng.random(40)
    w[:5] = 0
    newton, plain = NewtonLogistic.fit(x, y, w, l2), Logistic.fit(x, y, w, l2)
    np.testing.assert_allclose(newton.weights, plain.weights, atol=1e-3)
    np.testing.assert_allclose(newton.predict(x), plain.predict(x), atol=1e-3)


@pytest.mark.parametrize("features", [8, 60])
def test_soft_labels_and_one_class_alone(features: int) -> None:
    x, w = np.random.default_rng(0).normal(size=(40, features)), np.ones(40)
    assert abs(NewtonLogistic.fit(x, np.full(40, 0.7), w, 1.0).predict(x).mean() - 0.7) < 0.01
    assert NewtonLogistic.fit(x, w, w, 1.0).predict(x).min() > 0.9
    with pytest.raises(ValueError, match="weight"):
        NewtonLogistic.fit(x, w, np.zeros(40), 1.0)
