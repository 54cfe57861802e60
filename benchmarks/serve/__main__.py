"""Serving beside its peers, on the cores of this machine: `python -m benchmarks.serve [--quick]`.

    static         model.generate over batches of 8, in a process that does nothing else
    ours           the whole server: Ray Serve, API, event log on the disk, the engine of serve.engine
    plain          transformers serve
    continuous     transformers serve --continuous-batching --attn-implementation sdpa

All have the same weights and number format, write the best token each time, and answer the same messages of
real conversations, eight at a time, each person asking again when the answer is there. Arms run one after the
other; only ratios say something. What Serve, API and log add to one request is the median difference to
the same engine called in this process, in turns. Swaps go back and forth between two versions, every hash
verified each time. Exits with 1 when a goal is missed.
"""

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bb3x_ray.config import ChatConfig, ServeConfig
from bb3x_ray.language.chat_template import Turn, prompt_ids
from bb3x_ray.language.generation import Decoding
from bb3x_ray.language.loading import import_model, load_model
from bb3x_ray.precision import fast_dtype
from bb3x_ray.registry import Registry
from bb3x_ray.serve.engines.lanes import Lanes
from bb3x_ray.serve.on_ray import ServerHandle
from bb3x_ray.storage import Storage
from benchmarks.serve.load import Answer, Client, Crowd, Talk, all_together, talks
from benchmarks.serve.servers import free_port, ours, set_live, transformers_serve

PEOPLE = 8
VERSIONS = ("v0001", "v0002")
CHAT = ChatConfig(max_new_tokens=48, temperature=0)


def main() -> None:
    options = _options()
    if options.static:
        _static_arm(options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as aside:
        root = Path(aside)
        _publish(root, options.model)
        measured = measure(root, options)
    _report(measured, options)


def measure(root: Path, options: argparse.Namespace) -> dict[str, float]:
    about = talks(PEOPLE * options.rounds)
    shares = [about[person::PEOPLE] for person in range(PEOPLE)]
    model, dtype = root / "models" / "v0001", str(fast_dtype(torch.device("cpu"))).removeprefix("torch.")
    found: dict[str, float] = {}

    def pace(arm: str, port: int, name: str) -> None:
        all_together(port, name, [share[:1] for share in shares], options.tokens)  # warm
        found[arm] = _pace(lambda: all_together(port, name, shares, options.tokens))
        _say(f"{arm}: {found[arm]:.1f} tokens/s")

    command = [sys.executable, "-m", "benchmarks.serve", "--static", str(model)]
    command += ["--rounds", str(options.rounds), "--tokens", str(options.tokens)]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    found["static"] = json.loads(said.splitlines()[-1])
    _say(f"static: {found['static']:.1f} tokens/s")
    with transformers_serve(model, dtype) as port:
        pace("plain", port, str(model))
    paged = ("--continuous-batching", "--attn-implementation", "sdpa")
    with transformers_serve(model, dtype, *paged) as port:
        pace("continuous", port, str(model))
    config = ServeConfig(port=free_port(), num_cpus=0.5, max_reply_tokens=512)
    with ours(root, CHAT, config, "auto") as server:
        port = int(urlparse(server.url).port or 0)
        pace("ours", port, "champion")
        found |= _added(port, model, about, options)
        found |= _swaps(server, root, port, about, options)
    return found


def _pace(work: Callable[[], list[Answer]]) -> float:
    """Tokens a second of all together."""
    began = time.monotonic()
    answers = work()
    took = time.monotonic() - began
    failed = [answer.why for answer in answers if answer.why]
    if failed:
        raise SystemExit(f"benchmarks.serve: {len(failed)} of {len(answers)} requests failed: {failed[0]}")
    return sum(answer.tokens for answer in answers) / took


def _added(port: int, model: Path, about: list[Talk], options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of one request over HTTP, less those of the same engine in this process."""
    few = 8
    engine = Lanes(
        "v0001", model, max_batch=PEOPLE, max_queued=PEOPLE, max_context_tokens=CHAT.max_context_tokens
    )
    client = Client(port, "champion", few)

    async def once(talk: Talk) -> None:
        turns = [Turn(message["role"], message["content"]) for message in talk]
        async for _ in engine.submit(turns, Decoding(few, temperature=0)):
            pass

    with asyncio.Runner() as loop:
        differences = []
        for talk in [about[i % len(about)] for i in range(options.single + 3)]:
            began = time.perf_counter()
            loop.run(once(talk))
            within = time.perf_counter() - began
            answer = client.ask(talk)
            differences.append((answer.seconds - within) * 1000)
    client.close()
    engine.close()
    gc.collect()
    added = statistics.median(differences[3:])
    _say(f"added to one request: {added:.1f} ms (p50 of {options.single})")
    return {"added_ms": added}


def _swaps(
    server: ServerHandle, root: Path, port: int, about: list[Talk], options: argparse.Namespace
) -> dict[str, float]:
    crowd = Crowd(port, "champion", PEOPLE, about, options.tokens)
    crowd.wait_for(options.between * 10)
    began = time.monotonic()
    for number in range(options.swaps):
        version = VERSIONS[(number + 1) % 2]
        set_live(root, version)
        server.swap(version)
        crowd.wait_for(options.between)
    answers = crowd.stop()
    before = [a.seconds for a in answers if a.began + a.seconds < began and not a.why]
    during = [a.seconds for a in answers if a.began + a.seconds >= began and not a.why]
    failed = [answer.why for answer in answers if answer.why]
    extra = float(np.percentile(during, 99) - np.percentile(before, 99))
    seen = {answer.version for answer in answers}
    _say(
        f"{options.swaps} swaps under load: {len(failed)} of {len(answers)} failed {sorted(set(failed))}, "
        f"p99 {np.percentile(before, 99):.2f} s before and {np.percentile(during, 99):.2f} s meanwhile, "
        f"{len(seen)} versions answered"
    )
    return {"failed": len(failed), "extra_p99_s": extra}


def _static_arm(options: argparse.Namespace) -> None:
    """Prints the tokens a second of `model.generate` over batches of 8."""
    chat = load_model(options.static)
    about = talks(PEOPLE * options.rounds)
    prompts = [
        prompt_ids(chat.tokenizer, [Turn(m["role"], m["content"]) for m in talk], CHAT.max_context_tokens)
        for talk in about
    ]
    batches = [prompts[at : at + PEOPLE] for at in range(0, len(prompts), PEOPLE)]

    def generate(batch: list[list[int]]) -> int:
        longest = max(map(len, batch))
        with torch.inference_mode():
            out = chat.model.generate(
                input_ids=torch.tensor([[0] * (longest - len(ids)) + ids for ids in batch]),
                attention_mask=torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in batch]),
                max_new_tokens=options.tokens,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=sorted(chat.eos_ids),
            )
        return sum(_words(row, chat.eos_ids, options.tokens) for row in out[:, longest:].tolist())

    generate(batches[0])
    began = time.monotonic()
    tokens = sum(map(generate, batches))
    print(json.dumps(tokens / (time.monotonic() - began)))  # noqa: T201


def _words(row: list[int], ends: frozenset[int], most: int) -> int:
    return next((at for at, token in enumerate(row) if token in ends), most)


def _publish(root: Path, model: str) -> None:
    """Two versions of the same weights."""
    models = Registry(Storage(root), "models")
    for version in VERSIONS:
        with models.publish(models.reserve(), {"parent": None}, "For a benchmark.\n") as folder:
            import_model(model if version == "v0001" else str(root / "models" / "v0001"), folder)
    set_live(root, "v0001")


def _goals(found: dict[str, float]) -> Iterator[tuple[str, float, str, bool]]:
    """What is measured, its value, its goal, and whether that is reached."""

    def at_least(name: str, value: float, goal: float) -> tuple[str, float, str, bool]:
        return name, value, f">= {goal:g}", value >= goal

    def at_most(name: str, value: float, goal: float) -> tuple[str, float, str, bool]:
        return name, value, f"<= {goal:g}", value <= goal

    yield at_least("tokens/s by a static batch of 8", found["ours"] / found["static"], 0.7)
    yield at_least("tokens/s by transformers serve", found["ours"] / found["plain"], 3)
    yield at_least("tokens/s by transformers serve, continuous", found["ours"] / found["continuous"], 1)
    yield at_most("ms added to one request, p50", found["added_ms"], 15)
    yield at_most("failed or truncated replies in swaps", found["failed"], 0)
    yield at_most("extra p99 latency while swapping, s", found["extra_p99_s"], 1)


def _report(found: dict[str, float], options: argparse.Namespace) -> None:
    table = Table("measure", "value", "goal", "")
    goals = list(_goals(found))
    for name, value, goal, reached in goals:
        table.add_row(name, f"{value:.2f}", goal, "reached" if reached else "missed")
    Console().print(table)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))
    sys.exit(0 if all(reached for *_, reached in goals) else 1)


def _say(words: str) -> None:
    Console(stderr=True).print(words, highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.serve", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it runs")
    parser.add_argument("--model", default="smollm2", help="model.source")
    parser.add_argument("--rounds", type=int, help="messages of each of the eight people")
    parser.add_argument("--tokens", type=int, help="of a reply, at most")
    parser.add_argument("--single", type=int, help="requests one at a time")
    parser.add_argument("--swaps", type=int)
    parser.add_argument("--between", type=int, help="replies between two swaps; ten times as many before")
    parser.add_argument("--folder", type=Path, help="on the disk to be used; needs 2 GB")
    parser.add_argument("--out", type=Path, help="a JSON file for what was measured")
    parser.add_argument("--static", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    usual = {"rounds": 12, "tokens": 48, "single": 60, "swaps": 20, "between": 16}
    quick = {"rounds": 1, "tokens": 12, "single": 5, "swaps": 2, "between": 4}
    for name, value in (quick if options.quick else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


if __name__ == "__main__":
    main()
