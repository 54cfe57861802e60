"""TRL's KTO trainer on the same labelled turns: `apo_zero_unpaired`, reference log-probabilities precomputed.

Its code is as installed; token ids are handed over ready made, the very same as in the pairwise arm. Loading
and precomputing are not counted. Gradient checkpointing, which TRL switches on by itself, is off: it would
make the trainer slower.
"""

import tempfile
import time
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from benchmarks.train.job import Job, Measured
from benchmarks.train.layouts import Pair, length_of


class ReadyMade(KTOTrainer):  # type: ignore[misc]
    """Takes `prompt_ids` and `completion_ids` as they are."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of the training loop alone."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self._began


def measure(job: Job) -> Measured:
    pairs = [pair for step in job.pairs for pair in step]
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    columns = ("prompt_ids", "completion_ids")
    rows = [{**{name: pair[name] for name in columns}, "label": pair["good"]} for pair in pairs]
    clock = Clock()
    with tempfile.TemporaryDirectory() as aside:
        trainer = ReadyMade(
            model=model,
            args=_config(job, aside),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        _warm_up(trainer, min(rows, key=lambda row: len(row["prompt_ids"])))
        result = trainer.train()
    return Measured(
        seconds=clock.seconds,
        steps=result.global_step,
        turns=len(pairs),
        positions=_positions(pairs, job.micro_rows),
        loss=result.training_loss,
    )


def _config(job: Job, folder: str) -> KTOConfig:
    """Rows in the order they come, `micro_rows` side by side, as many in a step as in the pairwise arm."""
    return KTOConfig(
        output_dir=folder,
        loss_type="apo_zero_unpaired",
        precompute_ref_log_probs=True,
        max_length=job.window,
        per_device_train_batch_size=job.micro_rows,
        gradient_accumulation_steps=-(-max(map(len, job.pairs)) // job.micro_rows),
        num_train_epochs=1,
        learning_rate=job.lr,
        max_grad_norm=1.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        optim="adamw_torch_fused",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _warm_up(trainer: Any, row: dict[str, Any]) -> None:
    """One small forward and backward, as the other arms have it before the clock starts."""
    inputs = trainer.data_collator([{**row, "ref_logps": 0.0}])
    trainer.model.train()
    trainer.compute_loss(trainer.model, inputs).backward()
    trainer.model.zero_grad()


def _positions(pairs: list[Pair], micro_rows: int) -> int:
    groups = [pairs[i : i + micro_rows] for i in range(0, len(pairs), micro_rows)]
    return sum(len(group) * max(map(length_of, group)) for group in groups)
