"""One view with full contexts over all conversations: Ray Data over the log, against a plain Python loop.

The loop does what ParlAI's teacher does with the release files: `json.loads` each line, and for every
message of the side wanted join the earlier texts. Both arms make every example and look at its size, so
that nothing is put off.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.compute as pc

from bb3x_ray.data.on_ray.views import view_dataset
from bb3x_ray.data.views import View
from bb3x_ray.storage import Storage


@dataclass(frozen=True, slots=True)
class ViewArm:
    """What an arm made, and how long it took. Two arms must agree on all but `seconds`.

    context_bytes, label_bytes  UTF-8
    """

    utterances: int
    examples: int
    context_bytes: int
    label_bytes: int
    seconds: float

    @property
    def utterances_per_second(self) -> float:
        return self.utterances / self.seconds


def plain_loop(files: Sequence[Path], label: str = "bot") -> ViewArm:
    """One process, the standard library's `json`, release files as `.jsonl`."""
    began = time.perf_counter()
    utterances = examples = context_bytes = label_bytes = 0
    for path in files:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                conversation = json.loads(line)
                history = conversation.pop("message_history")
                utterances += len(history)
                for example in _examples(conversation, history, label):
                    examples += 1
                    context_bytes += len(example["text"].encode())
                    label_bytes += len(example["labels"][0].encode())
    return ViewArm(utterances, examples, context_bytes, label_bytes, time.perf_counter() - began)


def _examples(conversation: dict, history: list[dict], label: str) -> list[dict]:
    adversarial = any(
        message["sender"].lower() == "human" and set(message["safety"].values()) != {"__ok__"}
        for message in history
        if message.get("safety")
    )
    made = []
    for index, message in enumerate(history):
        is_human = message["sender"].lower() == "human"
        if index and is_human == (label == "human"):
            context = [earlier["text"] for earlier in history[:index]]
            made.append(
                {
                    **conversation,
                    "text": "\n".join(context),
                    "labels": [message["text"]],
                    "label_info": message,
                    "adversarial_human": adversarial,
                }
            )
    return made


def through_ray(storage: Storage, utterances: int, label: str = "bot") -> ViewArm:
    """The same view out of the log. Ray must be running; `utterances` is how many the log holds."""
    view = View(label, label)  # type: ignore[arg-type]
    began = time.perf_counter()
    examples = context_bytes = label_bytes = 0
    for table in view_dataset(storage, view).iter_batches(batch_size=None, batch_format="pyarrow"):
        examples += len(table)
        context_bytes += pc.sum(pc.binary_length(table["context"])).as_py() or 0
        label_bytes += pc.sum(pc.binary_length(table["label"])).as_py() or 0
    return ViewArm(utterances, examples, context_bytes, label_bytes, time.perf_counter() - began)


def compare(storage: Storage, files: Sequence[Path], label: str = "bot") -> dict[str, object]:
    """Both arms over the same conversations: `files` were ingested into `storage`, and nothing else.

    Raises ValueError where the arms did not make the same examples.
    """
    plain = plain_loop(files, label)
    ours = through_ray(storage, plain.utterances, label)
    same = {k: v for k, v in asdict(plain).items() if k != "seconds"}
    if same != {k: v for k, v in asdict(ours).items() if k != "seconds"}:
        raise ValueError(f"the arms disagree: plain {plain}, ours {ours}")
    ratio = ours.utterances_per_second / plain.utterances_per_second
    return {"plain": asdict(plain), "ours": asdict(ours), "ratio": ratio}
