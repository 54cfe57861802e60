"""Run all benchmarks: `python -m benchmarks [--model FOLDER]`. Ratios matter; seconds are this machine's."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bb3x_ray.data.parts import split_parts
from bb3x_ray.data.readers.chitchat import read_chitchat
from bb3x_ray.language.chat_template import Turn, prompt_ids
from bb3x_ray.language.generation import Decoding, generate
from bb3x_ray.language.loading import ChatModel, import_model, load_model
from bb3x_ray.train.cringe import cringe_loss

REPEATS = 3


def seconds(work: Callable[[], object]) -> float:
    """The fastest of a few runs: what the machine can do when it is left alone."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def generation(chat: ChatModel) -> tuple[str, float, str, float]:
    """40 tokens for 60 openers: our running batch against transformers' generate, greedy both."""
    openers = [c.turns[0] for c in split_parts(read_chitchat(2), 0)["talk"] if len(c.turns[0]) < 200][:60]
    ids = [prompt_ids(chat.tokenizer, [Turn("user", text)], 256) for text in openers]
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(i)) + i for i in ids])
    mask = torch.tensor([[0] * (longest - len(i)) + [1] * len(i) for i in ids])

    def peer() -> object:
        with torch.inference_mode():
            return chat.model.generate(
                input_ids=padded, attention_mask=mask, max_new_tokens=40, do_sample=False, pad_token_id=0
            )

    ours = seconds(lambda: generate(chat, ids, Decoding(40, temperature=0.0)))
    return "generate 60 × 40 tokens", ours, "transformers.generate", seconds(peer)


def labelled_head(chat: ChatModel) -> tuple[str, float, str, float]:
    """Head and CRINGE loss with backward: on the labelled fifth of 512 tokens, against all logits first."""
    head = chat.model.get_output_embeddings().weight.detach().float().requires_grad_()
    hidden = torch.randn(512, head.shape[1])
    targets = torch.randint(0, head.shape[0], (512,))
    labelled = torch.arange(512) % 5 == 0
    imitate, avoid = labelled & (torch.arange(512) % 2 == 0), labelled & (torch.arange(512) % 2 == 1)

    def ours() -> None:
        at = labelled.nonzero()[:, 0]
        cringe_loss(hidden[at] @ head.T, targets[at], imitate[at], avoid[at]).loss.backward()

    def peer() -> None:
        cringe_loss(hidden @ head.T, targets, imitate, avoid).loss.backward()

    return "head on labelled tokens", seconds(ours), "head on all tokens", seconds(peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model folder; the embedded one is imported without it")
    folder = parser.parse_args().model
    with tempfile.TemporaryDirectory() as aside:
        if folder is None:
            folder = Path(aside) / "model"
            folder.mkdir()
            import_model("smollm2", folder)
        chat = load_model(folder)
        table = Table(title=f"{folder.name}, {chat.model.dtype}, {torch.get_num_threads()} threads")
        for name in ("ours", "s", "peer", "peer's s", "peer / ours"):
            table.add_column(name)
        for bench in (generation, labelled_head):
            name, mine, peer, theirs = bench(chat)
            table.add_row(name, f"{mine:.2f}", peer, f"{theirs:.2f}", f"{theirs / mine:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
