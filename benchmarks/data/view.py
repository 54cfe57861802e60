"""One view with full contexts over all conversations: Ray Data over the log, against a plain Python loop.

    python -m benchmarks.data.view plain FOLDER    the release's files, `json` line by line in one process
    python -m benchmarks.data.view ours ROOT       the log that these files were ingested into

The loop does what ParlAI's teacher does: for every message of the bot it joins the earlier texts. Both arms
make every example and look at its size, so that nothing is put off, and must find the same examples.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LABEL = "bot"
GOAL = 2.0
_OBJECT_STORE_BYTES = 800_000_000


def measure(folder: Path, root: Path, repeats: int) -> Any:
    """Both arms by turns, `repeats` times; medians. `root`: a log that holds `folder` and nothing else."""
    from benchmarks.data import arm, goals, results

    plain, ours = [], []
    for _ in range(repeats):
        plain.append(arm.run("benchmarks.data.view", "plain", str(folder)))
        ours.append(arm.run("benchmarks.data.view", "ours", str(root)))
        check_same(plain[-1].said, ours[-1].said)
    utterances = plain[0].said["utterances"]
    theirs = statistics.median(utterances / run.seconds for run in plain)
    mine = statistics.median(utterances / run.seconds for run in ours)
    started = statistics.median(run.said.get("ray_start_seconds", 0.0) for run in ours)
    ratio = mine / theirs
    peak = max(run.peak_bytes for run in ours)
    table = [
        goals.Goal("utterances, examples", f"{utterances}, {plain[0].said['examples']}"),
        goals.Goal("plain loop, utterances/s", f"{theirs:.0f}"),
        goals.Goal(f"view, utterances/s (Ray's start counts: {started:.1f} s)", f"{mine:.0f}"),
        goals.Goal("view ÷ plain loop", f"{ratio:.2f}", f"≥ {GOAL:g}", ratio >= GOAL),
        goals.Goal("peak memory of all processes, GiB", f"{peak / 2**30:.2f}", "≤ 6", peak <= 6 * 2**30),
    ]
    return results.Found(
        table,
        utterances=utterances,
        seconds=utterances / mine,
        cpu_seconds=statistics.median(run.cpu_seconds for run in ours),
        peak_bytes=peak,
        start_seconds=started,
        ratio=ratio,
        also={"peer_seconds": utterances / theirs, "examples": plain[0].said["examples"]},
    )


def check_same(plain: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises ValueError where the arms did not make the same examples."""
    keys = ("examples", "context_bytes", "label_bytes", "adversarial")
    if any(plain[key] != ours[key] for key in keys):
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

    def add(self, example: dict[str, Any]) -> None:
        self.examples += 1
        self.context_bytes += len(example["text"])  # made-up words are ASCII
        self.label_bytes += len(example["labels"][0])
        self.adversarial += example["adversarial_human"]

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


def through_ray(root: Path) -> dict[str, Any]:
    """Sizes of what came out of the view; `seconds` holds Ray's start, which is told apart too."""
    began = time.perf_counter()
    import pyarrow.compute as pc
    import ray

    from bb3x_ray.data.on_ray.views import view_dataset
    from bb3x_ray.data.views import VIEWS
    from bb3x_ray.storage import Storage

    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    started = time.perf_counter() - began
    made = dict.fromkeys(("examples", "context_bytes", "label_bytes", "adversarial"), 0)
    dataset = view_dataset(Storage(root), VIEWS[LABEL])
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        made["examples"] += len(table)
        made["context_bytes"] += pc.sum(pc.binary_length(table["context"])).as_py() or 0
        made["label_bytes"] += pc.sum(pc.binary_length(table["label"])).as_py() or 0
        made["adversarial"] += pc.sum(table["adversarial_human"]).as_py() or 0
    return {"seconds": time.perf_counter() - began, "ray_start_seconds": started, **made}


if __name__ == "__main__":
    arm_of = {"plain": plain_loop, "ours": through_ray}[sys.argv[1]]
    sys.stdout.write(json.dumps(arm_of(Path(sys.argv[2]))) + "\n")
