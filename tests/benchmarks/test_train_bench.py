"""The training benchmark: its arms compute what they say, on the same turns; smoke runs on a tiny model."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bb3x_ray.schemas.errors import UserError
from bb3x_ray.train.attention import choose_packing
from bb3x_ray.train.linear_cringe import linear_cringe_loss
from bb3x_ray.train.step import hidden_states
from benchmarks.train import conversations, layouts, limit, memory, pairwise, report
from benchmarks.train.arm import PACKED, environment, measure
from benchmarks.train.conversations import LabelledTurn, Talk
from benchmarks.train.job import Job, Measured
from benchmarks.train.packed import batches_of
from tests.tiny import TEXTS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Six conversations with bots, as ConvAI2 has them; every third reply has a thumb."""
    dialogs = []
    for number in range(6):
        dialog = []
        for i in range(4 + 2 * number):
            is_bot = i % 2 == 1
            score = (number + i) % 2 if is_bot and (number + i) % 3 == 0 else None
            sender = "participant2" if is_bot else "participant1"
            dialog.append({"sender": sender, "text": TEXTS[(number + i) % 5], "evaluation_score": score})
        bot = {"class": "Bot", "user_id": "b"}
        person = {"class": "User", "user_id": f"p{number}"}
        about = {"participant1_id": person, "participant2_id": bot}
        dialogs.append({"dialog": dialog, "dialog_id": number, **about})
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(dialogs))
    return path


@pytest.fixture
def talks(file: Path, tiny_model: Path) -> list[Talk]:
    recorded = conversations.read(file)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return conversations.tokenize(recorded, tokenizer, conversations.label_all(recorded), 1024)


def job_of(arm: str, model: Path, talks: list[Talk]) -> Job:
    rows = [row for talk in talks for row in layouts.rows_of(talk, 1024)]
    pairs = [pair for talk in talks for pair in layouts.pairs_of(talk, 1024)]
    return Job(arm, str(model), 1, layouts.steps_of(rows, 3), layouts.steps_of(pairs, 16))


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--conversations FILE"):
        conversations.read(tmp_path / "nothing.json")


def test_every_reply_is_labelled_and_thumbs_come_first(file: Path, tiny_model: Path) -> None:
    recorded = conversations.read(file)
    label = conversations.label_all(recorded)
    bots = [(m.message_id, r.thumbs) for r in recorded for m in r.messages if m.author_kind == "external"]
    thumbs = {name: good for r in recorded for name, good in r.thumbs.items()}
    assert thumbs and set(thumbs.values()) == {True, False}
    assert all(label(name, given) == thumbs.get(name, label(name, {})) for name, given in bots)
    assert {label(f"m{i}", {}) for i in range(50)} == {True, False}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    of_all = conversations.tokenize(recorded, tokenizer, label, 1024)
    thumbed = conversations.tokenize(recorded, tokenizer, conversations.label_thumbed, 1024)
    assert sum(len(talk.turns) for talk in of_all) == len(bots)
    assert sum(len(talk.turns) for talk in thumbed) == len(thumbs)


@pytest.mark.parametrize("window", [64, 200, 1024])
def test_windows_label_each_turn_once_and_pairs_the_same_tokens(window: int) -> None:
    ids = list(range(700))
    turns = [LabelledTurn(start, start + 12, start % 4 == 0) for start in range(5, 680, 30)]
    talk = Talk("t", ids, turns)
    rows = layouts.rows_of(talk, window)
    wanted = Counter((i, turn.good) for turn in turns for i in range(turn.start, turn.end))
    labelled = [
        (token, good)
        for row in rows
        for name, good in (("imitate", True), ("avoid", False))
        for token, marked in zip(row["input_ids"], row[name], strict=True)
        if marked
    ]
    assert Counter(labelled) == wanted
    assert max(map(layouts.length_of, rows)) <= window
    assert sum(map(layouts.turns_in, rows)) == len(turns)
    pairs = layouts.pairs_of(talk, window)
    assert Counter((i, pair["good"]) for pair in pairs for i in pair["completion_ids"]) == wanted
    assert max(map(layouts.length_of, pairs)) <= window


def test_a_sample_is_fixed_and_looks_like_the_whole() -> None:
    lengths = [n * n % 997 + 3 for n in range(800)]
    chosen = layouts.spread(lengths, lambda n: n, budget=20_000, seed=1)
    assert chosen == layouts.spread(lengths, lambda n: n, budget=20_000, seed=1)
    assert sum(chosen) / len(chosen) == pytest.approx(sum(lengths) / len(lengths), rel=0.03)
    assert sum(chosen) == pytest.approx(20_000, rel=0.1)
    assert layouts.spread([5], lambda n: n, budget=1, seed=0) == [5]


def test_pairs_and_packed_rows_have_the_same_loss(tiny_model: Path, talks: list[Talk]) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    job = job_of("ours", tiny_model, talks)
    with torch.no_grad():
        apart = sum(pairwise.loss_sum(model, *pairwise.collate(step)).item() for step in job.pairs)
        packing = choose_packing(model, torch.device("cpu"), half=False)
        together = 0.0
        for step in job.steps:
            for batch in batches_of(step, 1024):
                hidden = hidden_states(model, batch, packing).index_select(0, batch.at)
                head = model.get_output_embeddings().weight
                sums = linear_cringe_loss(hidden, head, batch.targets, batch.imitate, batch.avoid)
                together += sums.loss.item()
    assert together == pytest.approx(apart, rel=1e-5)


@pytest.mark.parametrize("arm", ["pairwise", "plain", "fused"])
def test_an_arm_in_this_process(arm: str, tiny_model: Path, talks: list[Talk]) -> None:
    threads = torch.get_num_threads()
    try:
        check(arm, measure(job_of(arm, tiny_model, talks)), talks)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("arm", ["kto", "ours"])
def test_an_arm_of_its_own_process(arm: str, tiny_model: Path, talks: list[Talk], tmp_path: Path) -> None:
    if arm == "kto":
        pytest.importorskip("trl")
    job, out = tmp_path / "job.json", tmp_path / "out.json"
    job_of(arm, tiny_model, talks).save(job)
    command = [sys.executable, "-m", "benchmarks.train.arm", str(job), str(out)]
    subprocess.run(command, cwd=ROOT, env=environment(1), check=True, capture_output=True)
    found = Measured(**json.loads(out.read_text()))
    check(arm, found, talks)
    if arm == "ours":
        assert 0 < found.parts["model"] < found.seconds
        assert found.extra["flops"] > 0 and found.extra["matmul_flops_per_second"] > 0


def check(arm: str, found: Measured, talks: list[Talk]) -> None:
    assert math.isfinite(found.loss)
    assert found.turns == sum(len(talk.turns) for talk in talks)
    assert found.seconds > 0 and found.rate > 0 and found.steps >= 2
    tokens = sum(len(talk.input_ids) for talk in talks)
    assert found.positions == tokens if arm in PACKED else found.positions > tokens


def test_flops_count_the_weights_of_the_body(tiny_model: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    assert limit.body_weights(model.config) == sum(p.numel() for p in matrices)
    row = {"input_ids": [0] * 10, "imitate": [True] * 2 + [False] * 8, "avoid": [False] * 7 + [True] * 3}
    vocabulary = 2.0 * model.config.hidden_size * model.config.vocab_size
    whole = limit.rows_flops(model.config, [row])
    assert whole == pytest.approx(3 * limit.body_flops(model.config, 10) + 9 * vocabulary)


def test_ratios_compare_neighbours_and_know_the_goals() -> None:
    extra = {"flops": 70.0, "matmul_flops_per_second": 10.0}
    ours = [
        Measured(10.0, 1, 90, parts={"model": 9.5}, extra=extra),
        Measured(20.0, 1, 90, parts={"model": 19.0}, extra=extra),
    ]
    rival = [Measured(10.0, 1, 10), Measured(20.0, 1, 10)]
    found = {r.name: r for r in report.ratios({"ours": ours, "stage1": ours, "kto": rival, "fused": rival})}
    turns = found["turns/s, ours ÷ TRL's KTO trainer"]
    assert (turns.median, turns.low, turns.high, turns.reached) == (9.0, 9.0, 9.0, True)
    assert found["step time, ours ÷ fused cross-entropy"].median == 1.0
    share = found["model's forward and backward ÷ step, stage 1"]
    assert share.median == pytest.approx(0.95) and share.reached
    assert found["arithmetic rate of the step ÷ large products"].high == pytest.approx(0.7)
    assert Measured(10.0, 1, 90, luck=0.5).rate == 4.5


def test_fused_loss_needs_less_memory_than_the_logits_alone() -> None:
    shape = memory.Shape(vocabulary=60_000, tokens=512, hidden=32, threads=1)
    logits = 512 * 60_000 * 4 / 2**20
    assert 1 < memory.in_process("loss", "ours", shape) < logits


def test_the_gpu_script_runs_on_torch_and_transformers_alone(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    asked = ["--size", "tiny", "--vocabulary", "500", "--tokens", "1500", "--steps", "1", "--device", "cpu"]
    script = (
        "import sys; sys.argv = ['gpu', *sys.argv[1:]]; from benchmarks.train import gpu; gpu.main();"
        "assert not {'ray', 'deepspeed', 'pydantic', 'pyarrow', 'trl'} & set(sys.modules), 'too many imports'"
    )
    command = [sys.executable, "-c", script, *asked, "--peak", "1", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, env=environment(1), check=True, capture_output=True)
    found = json.loads(out.read_text())
    assert set(found["arms"]) == {"ours", "fused", "plain", "pairwise"}
    assert found["ratios"]["MFU"] > 0 and found["largest"]["ours"] >= 1024
