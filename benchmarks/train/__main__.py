"""Arms of training side by side on the same conversations: `python -m benchmarks.train --help`.

Every arm runs in a process of its own; arms take turns, so that what else the machine does falls on all of
them. Ratios are made of runs next to each other in time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from transformers import AutoTokenizer

from bb3x_ray.config import TrainConfig
from bb3x_ray.schemas.errors import UserError
from benchmarks.train import conversations, layouts, memory, report
from benchmarks.train.arm import ARMS, PACKED, environment
from benchmarks.train.conversations import Recorded, Talk
from benchmarks.train.job import Job, Measured

ROOT = Path(__file__).parents[2]
PAIRS_PER_STEP = 32
CALIBRATION_TOKENS = 1024
THUMBED_ARMS = ("pairwise", "kto", "ours")  # what is measured there is the ratio of turns


def main() -> None:
    options = _options()
    console = Console()
    try:
        _run(options, console)
    except UserError as error:
        console.print(f"bench-train: {error}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None


def _run(options: argparse.Namespace, console: Console) -> None:
    if "kto" in options.arms and find_spec("trl") is None:
        raise UserError("--arms: kto needs TRL; install this project's extra [bench], or name other arms.")
    recorded = conversations.read(options.conversations)
    model = options.model or _embedded(ROOT / "build" / "bench-model")
    with tempfile.TemporaryDirectory() as aside:
        cases = _cases(options, recorded, model, Path(aside), console)
    memories = {} if options.no_memory else memory.ratios(memory.Shape(threads=options.threads))
    if memories:
        console.print(report.ratio_table("memory at a vocabulary of 128k", report.memory_ratios(memories)))
    if options.out:
        said = {key: str(value) for key, value in vars(options).items()}
        options.out.write_text(json.dumps(report.to_json(cases, memories, said), indent=1) + "\n")


def _cases(
    options: argparse.Namespace, recorded: list[Recorded], model: Path, aside: Path, console: Console
) -> dict[str, report.Runs]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    labels = {"all": conversations.label_all(recorded), "thumbed": conversations.label_thumbed}
    budget = options.tokens
    found: dict[str, report.Runs] = {}
    for case in options.cases:
        talks = conversations.tokenize(recorded, tokenizer, labels[case], options.window)
        arms = [arm for arm in options.arms if case == "all" or arm in THUMBED_ARMS]
        if budget is None:  # tokens that plain fine-tuning manages in the time given
            job = _job("plain", model, talks, options, CALIBRATION_TOKENS)
            first = _in_process(job, aside)
            budget = round(options.seconds * first.positions / first.seconds)
        jobs = {arm: _job(arm, model, talks, options, budget) for arm in arms}
        found[case] = _interleaved(jobs, options.repeats, aside, console)
        for arm, runs in found[case].items():
            luck = layouts.tokens_a_turn([*jobs[arm].steps, *jobs[arm].pairs]) / _whole(arm, talks, options)
            for run in runs:
                run.luck = luck
        turns = sum(len(talk.turns) for talk in talks)
        title = f"{case}: {len(talks)} conversations, {turns} labelled turns, ~{budget} tokens an arm"
        console.print(report.arm_table(title, found[case]))
        console.print(report.ratio_table(f"{case}: {options.repeats} repeats", report.ratios(found[case])))
    return found


def _job(arm: str, model: Path, talks: list[Talk], options: argparse.Namespace, budget: int) -> Job:
    """A sample of the file's conversations for the packed arms, of all its turns for the others."""
    job = Job(arm, str(model), options.threads, window=options.window)
    if arm in PACKED:
        chosen = layouts.spread(talks, lambda talk: len(talk.input_ids), budget, options.seed)
        rows = [row for talk in chosen for row in layouts.rows_of(talk, options.window)]
        return replace(job, steps=layouts.steps_of(rows, TrainConfig().rows_per_step))
    turns = [pair for talk in talks for pair in layouts.pairs_of(talk, options.window)]
    pairs = layouts.spread(turns, layouts.length_of, budget, options.seed)
    if options.pair_order == "length":
        pairs = sorted(pairs, key=layouts.length_of)
    return replace(job, pairs=layouts.steps_of(pairs, PAIRS_PER_STEP))


def _interleaved(jobs: dict[str, Job], repeats: int, aside: Path, console: Console) -> report.Runs:
    runs: report.Runs = {arm: [] for arm in jobs}
    for repeat in range(repeats):
        # There and back again: a machine that grows slower favours no arm.
        for arm in list(jobs) if repeat % 2 == 0 else reversed(list(jobs)):
            under_way = f"repeat {repeat + 1} of {repeats}: {arm}"
            if not console.is_terminal:
                console.print(under_way)
            with console.status(under_way):
                runs[arm].append(_in_process(jobs[arm], aside))
    return runs


def _in_process(job: Job, aside: Path) -> Measured:
    asked, answer, said = (aside / name for name in ("job.json", "measured.json", "said.txt"))
    job.save(asked)
    command = [sys.executable, "-m", "benchmarks.train.arm", str(asked), str(answer)]
    with said.open("w") as log:
        done = subprocess.run(command, env=environment(job.threads), cwd=ROOT, stdout=log, stderr=log)
    if done.returncode:
        last = [line for line in said.read_text().splitlines() if line.strip()][-1:]
        raise UserError(f"arm {job.arm} failed: {' '.join(last)[:300] or 'it was killed'}")
    return Measured(**json.loads(answer.read_text()))


def _whole(arm: str, talks: list[Talk], options: argparse.Namespace) -> float:
    """Tokens a labelled turn over the whole file."""
    layout = layouts.rows_of if arm in PACKED else layouts.pairs_of
    return layouts.tokens_a_turn([layout(talk, options.window) for talk in talks])


def _embedded(folder: Path) -> Path:
    """The embedded model as a folder, made once."""
    if not (folder / "tokenizer.json").is_file():  # written last
        from bb3x_ray.language.loading import import_model

        folder.mkdir(parents=True, exist_ok=True)
        import_model("smollm2", folder)
    return folder


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.train", description=__doc__)
    default = ROOT.parent / "shared" / "data" / "convai2" / "data_volunteers.json"
    parser.add_argument("--conversations", type=Path, default=default, help="ConvAI2's volunteers' file")
    parser.add_argument("--model", type=Path, help="a model folder; without it the embedded one")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--cases", nargs="+", choices=("all", "thumbed"), default=["all", "thumbed"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long a run of an arm takes")
    parser.add_argument("--tokens", type=int, help="tokens an arm takes in a run, instead of --seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=1024, help="tokens of the longest row")
    parser.add_argument(
        "--pair-order",
        choices=("random", "length"),
        default="random",
        help="of the arms with a row a turn: by length they need hardly any padding",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--out", type=Path, help="where all numbers go as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
