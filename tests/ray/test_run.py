"""The whole of `bb3x run`, with a tiny random model: real Ray, Serve, Data, Train and DeepSpeed.

Nothing good can be learned here; what is tested is that the loop closes, and that a run killed in any
step after the slice is pinned ends with the same verdict.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from bb3x_ray.data.lookup import Lookup
from bb3x_ray.data.tombstones import Tombstones, pending
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.server_key import server_key
from bb3x_ray.serve.completion_ids import Signer
from bb3x_ray.storage import Storage
from tests.tiny import make_tiny_model

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]

CONFIG = """
name: tiny
rounds: {rounds}
storage: {{root: {root}}}
model: {{source: {model}, dtype: float32}}
chat: {{system_prompt: Chat., max_new_tokens: 8, max_context_tokens: 256}}
serve: {{port: {port}}}
talk: {{helpers: 8, trolls: 4, turns_per_conversation: 2, noise: 0.2}}
curate: {{human_rows: 6, human_candidates: 40, max_tokens: 96}}
train: {{rows_per_step: 8, lr: 1e-3{train}}}
safety: {{ordinary: 200}}
evaluate: {{standard: 8, adversarial: 4, perplexity_messages: 8, panel: 20, bootstrap: 200}}
metrics: {{wandb: disabled}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Two iterations; best and worst answers to a context always differ, so the second has something to learn.
TWICE = (
    ", iterations: 2, objective: pairwise_cringe, answers: {per_context: 2}, perplexity_stop: 100,"
    " mix: [{source: human, weight: 1}, {source: safety, weight: 0.5}]"
)


def write_config(folder: Path, root: Path, rounds: int, train: str = "") -> Path:
    model = folder / "model"
    if not model.is_dir():
        make_tiny_model(model)
    path = folder / f"{root.name}.yaml"
    path.write_text(CONFIG.format(rounds=rounds, root=root, model=model, port=free_port(), train=train))
    return path


def start_run(config: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    env.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "bb3x_ray.cli", "run", "--config", str(config)],
        cwd=ROOT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run_until(config: Path, words: str, how: signal.Signals = signal.SIGKILL) -> list[str]:
    """Run until a line with `words` is printed, then stop the driver. Returns all lines that were printed."""
    process = start_run(config)
    lines = []
    assert process.stdout
    for line in process.stdout:
        lines.append(line)
        if words in line:
            process.send_signal(how)
            break
    else:
        raise AssertionError(f"{words!r} was never printed:\n{''.join(lines)}")
    rest = [] if how == signal.SIGKILL else list(process.stdout)  # after a kill Ray's processes hold the pipe
    assert process.wait() == (-how if how == signal.SIGKILL else 130)
    return lines + rest


def run_whole(config: Path) -> str:
    process = start_run(config)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return out


def verdict_of(root: Path) -> dict[str, object]:
    verdict: dict[str, object] = json.loads((root / "rounds/0001/evaluate/verdict.json").read_text())
    return verdict


def test_the_loop_closes(tmp_path: Path) -> None:
    """One round: people talk over HTTP, the model learns, a verdict falls, the control is rejected."""
    root = tmp_path / "store"
    out = run_whole(write_config(tmp_path, root, rounds=1))
    storage = Storage(root)
    models = Registry(storage, "models")
    verdict = verdict_of(root)
    assert models.versions() == ["v0001", "v0002", "v0003"]
    assert models.champion == ("v0002" if verdict["passed"] else "v0001")
    assert not json.loads((root / "rounds/control/verdict.json").read_text())["passed"]
    slice_ = storage.manifest("rounds/0001/collect")
    assert slice_["bot_turns"] == 24
    assert slice_["thumbs_up"] + slice_["thumbs_down"] == 24
    report = (root / "reports/report.md").read_text()
    assert report.startswith("# SIMULATED PEOPLE")
    assert (root / "reports/rounds.png").stat().st_size > 10_000
    assert "SIMULATED PEOPLE" in out
    assert "Traceback" not in out
    rooms = {json.loads(line)["room"] for line in (root / "metrics/metrics.jsonl").read_text().splitlines()}
    assert {"score", "curate", "train", "evaluate", "rounds/1"} <= rooms


@pytest.mark.slow
def test_killed_anywhere_it_goes_on(tmp_path: Path) -> None:
    """From one pinned slice: killed in every step, and undisturbed, with the same verdict and weights."""
    disturbed = tmp_path / "disturbed"
    config = write_config(tmp_path, disturbed, rounds=1, train=TWICE)
    stopped_kindly = run_until(config, "collect:", signal.SIGTERM)
    assert "bb3x: stopped; the same command goes on" in stopped_kindly[-1], stopped_kindly
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(disturbed, undisturbed)
    for words in ("score:", "train: iteration 2, step 1", "v0002 answers", "evaluate:"):
        run_until(config, words)
    run_whole(config)
    run_whole(write_config(tmp_path, undisturbed, rounds=1, train=TWICE))
    assert verdict_of(disturbed) == verdict_of(undisturbed)
    assert Registry(Storage(disturbed)).champion == Registry(Storage(undisturbed)).champion
    for root in (disturbed, undisturbed):
        check_iterations(Storage(root))


def check_iterations(storage: Storage) -> None:
    """Both iterations' sets, numbers and samples are kept, their weights are not."""
    lineage = Registry(storage).lineage("v0002")
    assert [result["iteration"] for result in lineage["iterations"]] == [1, 2]
    assert all(result["kept"] and result["perplexity"] > 1 for result in lineage["iterations"])
    assert lineage["metrics"]["tokens"] == sum(r["metrics"]["tokens"] for r in lineage["iterations"])
    assert set(lineage["mix"]) == {"round", "human", "safety"}
    second = storage.verify("rounds/0001/iterations/2/set")
    sources = pq.read_table(second / "training_set.parquet")["source"].to_pylist()
    assert sources.count("answers") == storage.manifest("rounds/0001/iterations/2/set")["imitate"] > 0
    answers = storage.verify("rounds/0001/iterations/2/answers")
    assert pq.read_table(answers / "answers.parquet").num_rows == 2 * 24
    assert len(json.loads((answers / "samples.json").read_text())) == 10
    assert not storage.path("rounds/0001/iterations/1/weights").exists()
    assert not storage.path("rounds/0001/iterations/2/weights").exists()


def test_bb3x_serve_answers_until_it_is_stopped(tmp_path: Path) -> None:
    """`bb3x serve` answers, streams, takes a thumb, and stops at a signal."""
    root = tmp_path / "store"
    config = write_config(tmp_path, root, rounds=1)
    port = int(config.read_text().split("serve: {port: ")[1].split("}")[0])
    process = subprocess.Popen(
        [sys.executable, "-m", "bb3x_ray.cli", "serve", "--config", str(config)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        assert any("chat with v0001" in line for line in process.stdout)
        url = f"http://127.0.0.1:{port}"
        body = {"messages": [{"role": "user", "content": "Hello there"}], "user": "ada", "store": True}
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        assert reply["model_version"] == "v0001"
        thumb = {"completion_id": reply["id"], "rating": 1, "user": "ada"}
        assert httpx.post(f"{url}/v1/feedback", json=thumb, timeout=60).status_code == 200
        assert "<title>" in httpx.get(url, timeout=60).text
        bobs = httpx.post(f"{url}/v1/chat/completions", json={**body, "user": "bob"}, timeout=60).json()
        gone = {"completion_id": reply["id"], "user": "ada"}
        assert httpx.post(f"{url}/v1/erasure", json=gone, timeout=60).status_code == 202
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0
    assert not list((root / "inbox").glob("*.jsonl")), "the log is committed when the server stops"
    storage, key = Storage(root), Signer(server_key(Storage(root)))
    assert list(pending(storage)) == [], "and who asked to be erased is, with no round in sight"
    ada, bob = (Lookup(storage).of_person(key.pseudonym(user)) for user in ("ada", "bob"))
    assert ada == [] and bobs["id"] in {event.message_id for event in bob}
    assert Tombstones(storage).of(key.pseudonym("ada")).done
