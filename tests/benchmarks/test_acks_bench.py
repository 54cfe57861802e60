"""The benchmark of acknowledgements runs, counts everything, and finds nothing lost."""

import pytest

from benchmarks.data.acks import measure


@pytest.mark.parametrize("ack", ["disk", "shared"])
def test_every_thumb_is_acknowledged_and_found_again(ack: str) -> None:
    found = measure(ack, seconds=1, rate=40, connections=4)
    assert (found.acknowledged, found.refused, found.lost, found.doubled) == (40, 0, 0, 0)
    assert 0 < found.p50_ms <= found.p99_ms <= found.max_ms
