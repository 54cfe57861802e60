"""One view with full contexts over all conversations: the log, against a plain Python loop over files.

    python -m benchmarks.data.view plain FOLDER    the release's files, `json` line by line in one process
    python -m benchmarks.data.view ours ROOT       the log that these files were ingested into, on all cores
    python -m benchmarks.data.view ray ROOT        the same through Ray Data, as on a cluster

The loop does what ParlAI's teacher does: for every message of the bot it joins the earlier texts. Both arms
make every example and look at its size, so that nothing is put off, and must find the same examples. Imports
and Ray's start count.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

LABEL = "bot"
GOAL = 2.0
CHECKED = ("examples", "context_bytes", "label_bytes", "adversarial", "thumbs_up", "thumbs_down")


def measure(folder: Path, root: Path, repeats: int) -> Any:
    """All arms by turns, `repeats` times; medians. `root`: a log that holds `folder` and nothing else."""
    from benchmarks.data import arm, goals, results

    runs: dict[str, list[arm.Measured]] = {name: [] for name in ARMS}
    for _ in range(repeats):
        for name, found in runs.items():
            found.append(arm.run("benchmarks.data.view", name, str(folder if name == "plain" else root)))
            check_same(runs["plain"][-1].said, found[-1].said)
    utterances = runs["plain"][0].said["utterances"]
    seconds = {name: statistics.median(run.seconds for run in found) for name, found in runs.items()}
    cpu = {name: statistics.median(run.cpu_seconds for run in found) for name, found in runs.items()}
    peak = {name: max(run.peak_bytes for run in found) for name, found in runs.items()}
    started = statistics.median(run.said["ray_start_seconds"] for run in runs["ray"])
    ratio, through_ray = (seconds["plain"] / seconds[name] for name in ("ours", "ray"))
    worst = max(peak["ours"], peak["ray"])
    table = [
        goals.Goal("utterances, examples", f"{utterances}, {runs['plain'][0].said['examples']}"),
        goals.Goal("plain loop, utterances/s", f"{utterances / seconds['plain']:.0f}"),
        goals.Goal("view, utterances/s", f"{utterances / seconds['ours']:.0f}"),
        goals.Goal("view ÷ plain loop", f"{ratio:.2f}", f"≥ {GOAL:g}", ratio >= GOAL),
        goals.Goal(
            f"the same through Ray Data (whose start took {started:.1f} s)",
            f"{through_ray:.2f}",
        ),
        goals.Goal(
            "processor time of plain loop, view, through Ray Data, s",
            ", ".join(f"{cpu[name]:.0f}" for name in ARMS),
        ),
        goals.Goal(
            "peak memory of all processes of view, through Ray Data, GiB",
            f"{peak['ours'] / 2**30:.2f}, {peak['ray'] / 2**30:.2f}",
            "≤ 6",
            worst <= 6 * 2**30,
        ),
    ]
    return results.Found(
        table,
        utterances=utterances,
        seconds=seconds["ours"],
        cpu_seconds=cpu["ours"],
        peak_bytes=worst,
        ratio=ratio,
        also={
            "peer_seconds": seconds["plain"],
            "ray_seconds": seconds["ray"],
            "examples": runs["plain"][0].said["examples"],
        },
    )


def check_same(plain: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises ValueError where the arms did not make the same examples."""
    if any(plain[key] != ours[key] for key in CHECKED):
        raise ValueError(f"the arms disagree: plain {plain}, ours {ours}")


def plain_loop(folder: Path) -> dict[str, Any]:
    """Sizes of what the loop made, and its `seconds`."""
    began = time.perf_counter()
    utterances = 0
    made = _Sizes()
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                conversation = json.loads(line)
                history = conversation.pop("message_history")
                utterances += len(history)
                for example in _examples(conversation, history):
                    made.add(example)
    return {"seconds": time.perf_counter() - began, "utterances": utterances, **made.as_dict()}


class _Sizes:
    def __init__(self) -> None:
        self.examples = self.context_bytes = self.label_bytes = self.adversarial = 0
        self.thumbs_up = self.thumbs_down = 0

    def add(self, example: dict[str, Any]) -> None:
        self.examples += 1
        self.context_bytes += len(example["text"])  # made-up words are ASCII
        self.label_bytes += len(example["labels"][0])
        self.adversarial += example["adversarial_human"]
        self.thumbs_up += example["label_info"]["is_liked"]
        self.thumbs_down += example["label_info"]["is_disliked"]

    def add_table(self, table: "pa.Table") -> None:
        import pyarrow.compute as pc

        self.examples += len(table)
        self.context_bytes += pc.sum(pc.binary_length(table["context"])).as_py() or 0
        self.label_bytes += pc.sum(pc.binary_length(table["label"])).as_py() or 0
        self.adversarial += pc.sum(table["adversarial_human"]).as_py() or 0
        self.thumbs_up += pc.sum(pc.equal(table["thumb"], 1)).as_py() or 0
        self.thumbs_down += pc.sum(pc.equal(table["thumb"], -1)).as_py() or 0

    def as_dict(self) -> dict[str, int]:
        return dict(vars(self))


def _examples(conversation: dict[str, Any], history: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    adversarial = any(m["sender"] == "human" and not _is_safe(m["safety"]) for m in history)
    for index, message in enumerate(history):
        if index and message["sender"] == LABEL:
            yield {
                **conversation,
                "text": "\n".join([earlier["text"] for earlier in history[:index]]),
                "labels": [message["text"]],
                "label_info": message,
                "adversarial_human": adversarial,
            }


def _is_safe(safety: dict[str, str]) -> bool:
    return safety["duo_safety"] == "__ok__" and safety["string_matcher"] == "__ok__"


def on_threads(root: Path) -> dict[str, Any]:
    """Sizes of what came out of the view, and its `seconds`."""
    began = time.perf_counter()
    from bb3x_ray.data.views import VIEWS, read_view
    from bb3x_ray.storage import Storage

    made = _Sizes()
    for table in read_view(Storage(root), VIEWS[LABEL]):
        made.add_table(table)
    return {"seconds": time.perf_counter() - began, **made.as_dict()}


def through_ray(root: Path) -> dict[str, Any]:
    """The same; `seconds` holds Ray's start, which is told apart too."""
    began = time.perf_counter()
    from bb3x_ray.data.on_ray.views import view_dataset
    from bb3x_ray.data.views import VIEWS
    from bb3x_ray.storage import Storage
    from benchmarks.data.arm import start_ray

    start_ray()
    started = time.perf_counter() - began
    made = _Sizes()
    dataset = view_dataset(Storage(root), VIEWS[LABEL])
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        made.add_table(table)
    return {"seconds": time.perf_counter() - began, "ray_start_seconds": started, **made.as_dict()}


ARMS = {"plain": plain_loop, "ours": on_threads, "ray": through_ray}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(ARMS[sys.argv[1]](Path(sys.argv[2]))) + "\n")
