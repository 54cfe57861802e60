"""Answers are kept for as long as they are answers to the same thing."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from bb3x_ray.config import ChatConfig, Config, EvaluateConfig
from bb3x_ray.data.readers.chitchat import ChitchatConversation
from bb3x_ray.evaluate.prompts import PromptSets
from bb3x_ray.evaluate.replies import Answers, answer
from bb3x_ray.registry import Registry
from bb3x_ray.rounds import judging as module
from bb3x_ray.rounds.judging import Judging
from bb3x_ray.rounds.material import Material
from bb3x_ray.schemas.errors import UserError
from bb3x_ray.storage import Storage


def judging(storage: Storage, word: str, panel: int = 20) -> Judging:
    talks = [
        ChitchatConversation(f"c{n}", ("a", "b"), (f"here is what {word} {n} has to say", "yes"), None)
        for n in range(30)
    ]
    material = Material({"perplexity": talks, "judge": talks}, PromptSets((), ()))
    config = Config(chat=ChatConfig(max_new_tokens=1), evaluate=EvaluateConfig(panel=panel))
    return Judging(storage, Registry(storage), material, config, lambda line: None)


def test_perplexity_over_other_messages_is_not_compared(
    storage: Storage, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry(storage).publish(Registry(storage).reserve(), {}, "card") as folder:
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)

    def in_this_process(*about: Any, on_wait: object) -> Answers:
        return answer(*about[:4])

    monkeypatch.setattr(module, "answer_on_ray", in_this_process)
    assert judging(storage, "Ada").answers("v0001") == judging(storage, "Ada").answers("v0001")
    with pytest.raises(UserError, match="foretold other messages"):
        judging(storage, "Bob").answers("v0001")
    with pytest.raises(UserError, match="remove that folder"):
        judging(storage, "Ada", panel=25).answers("v0001")
