"""Evaluate's door to Ray: a version answers on whatever node has room for it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import ray
import torch

from bb3x_ray.config import EvaluateConfig
from bb3x_ray.evaluate.prompts import Prompt
from bb3x_ray.evaluate.replies import Answers, Asking, answer


def answer_on_ray(
    folder: Path,
    prompts: dict[str, Sequence[Prompt]],
    human_texts: Sequence[str],
    asking: Asking,
    config: EvaluateConfig,
    on_wait: Callable[[float], None] | None = None,
) -> Answers:
    """`replies.answer` as a Ray task with the resources that the config declares."""
    task = ray.remote(_answer).options(num_cpus=config.num_cpus, num_gpus=config.num_gpus, max_retries=1)
    ref = task.remote(str(folder), {k: list(v) for k, v in prompts.items()}, list(human_texts), asking)
    seconds = 0.0
    while not ray.wait([ref], timeout=2.0)[0]:
        seconds += 2.0
        if on_wait:
            on_wait(seconds)
    answers: Answers = ray.get(ref)
    return answers


def _answer(
    folder: str, prompts: dict[str, Sequence[Prompt]], human_texts: list[str], asking: Asking
) -> Answers:
    # Ray sets one thread for a fractional CPU; this task has the machine's cores to itself meanwhile.
    torch.set_num_threads(os.cpu_count() or 1)
    return answer(Path(folder), prompts, human_texts, asking)
