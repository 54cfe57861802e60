"""What a run stands on: texts for one purpose are not those for another."""

from pathlib import Path

import pytest

from bb3x_ray.config import EvaluateConfig
from bb3x_ray.data.parts import split_parts
from bb3x_ray.data.readers.chitchat import ChitchatConversation, read_chitchat
from bb3x_ray.evaluate.prompts import PromptSets
from bb3x_ray.rounds import material as module
from bb3x_ray.rounds.material import Material, load_material
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage


def material(talks: int) -> Material:
    """Each conversation says its own name four times, and once what all say."""
    said = [
        ChitchatConversation(
            f"c{n}",
            ("a", "b"),
            (*(f"this is what c{n} has to say, part {i}" for i in range(4)), "all of us say this very thing"),
            None,
        )
        for n in range(talks)
    ]
    return Material({"perplexity": said}, PromptSets((), ()))


def conversations(texts: list[str]) -> set[str]:
    return {text.split()[3] for text in texts if text.startswith("this is")}


def test_training_s_probe_and_the_gate_s_share_no_conversation_and_no_text() -> None:
    found = material(100)
    gate, probe = found.perplexity_texts(10_000), found.probe_texts(10_000)
    assert conversations(gate) | conversations(probe) == {f"c{n}" for n in range(100)}
    assert not conversations(gate) & conversations(probe)
    assert 30 < len(conversations(gate)) < 70
    assert not set(gate) & set(probe)
    assert all(len(text.split()) >= 6 for text in gate + probe)


def test_as_many_are_taken_as_are_asked_for_evenly() -> None:
    found = material(100)
    assert len(found.perplexity_texts(20)) == len(found.probe_texts(20)) == 20
    assert len(conversations(found.probe_texts(20))) > 15


def test_who_talks_on_does_not_move_from_one_side_to_the_other() -> None:
    few, many = material(10), material(100)
    assert conversations(few.probe_texts(10_000)) <= conversations(many.probe_texts(10_000))


def test_a_side_without_any_text_is_told_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = read_chitchat(min_turns=2)
    held_out = {c.conversation_id for c in split_parts(talks)["perplexity"]}
    left = [c for c in talks if c.conversation_id not in held_out or c.conversation_id == min(held_out)]
    config = EvaluateConfig(standard=8, adversarial=4)
    assert load_material(Storage(tmp_path / "whole"), config, seed=0).probe_texts(200)
    monkeypatch.setattr(module, "read_chitchat", lambda min_turns: left)
    with pytest.raises(UserError, match=r"no message by which the (gate|training) could measure"):
        load_material(Storage(tmp_path / "few"), config, seed=0)
