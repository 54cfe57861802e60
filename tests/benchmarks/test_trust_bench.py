"""The benchmark's own data has trolls that the bare arm finds; the other arm is tested in tests/ray."""

from pathlib import Path

from benchmarks import trust


def test_made_up_trolls_are_found_and_helpers_left_alone(tmp_path: Path) -> None:
    trust.make(tmp_path, thumbs=20_001, people=400)
    said = trust.bare(tmp_path)
    assert said["thumbs"] == 20_001 and said["people"] == 400
    assert said["trolls_found"] > 0.95 and said["helpers_distrusted"] < 0.02
