"""Iterations on the tiny model: what is drawn depends on the question alone, and a collapse is undone."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from bb3x_ray.classify.encoder import load_encoder
from bb3x_ray.classify.pair_logistic import PairLogistic
from bb3x_ray.classify.pairs import Pair
from bb3x_ray.config import AnswersConfig, Config
from bb3x_ray.data.slices import Slice, write
from bb3x_ray.data.training_rows import talk_rows
from bb3x_ray.language.chat_template import Turn, prompt_ids
from bb3x_ray.language.generation import Decoding
from bb3x_ray.language.loading import load_model
from bb3x_ray.language.perplexity import perplexity
from bb3x_ray.metrics import Metrics
from bb3x_ray.registry import Registry
from bb3x_ray.rounds.round import RoundPlan
from bb3x_ray.rounds.training import Training
from bb3x_ray.schemas.learning import ANSWERS_SCHEMA
from bb3x_ray.storage import Storage
from bb3x_ray.train.on_ray.answers import answer_questions
from tests.data.make import to_table
from tests.reward.make import conversation

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
PLAN = RoundPlan(1, 1, "v0001", "v0002", 0)
# The first iteration makes it 1.8 times the untrained model's, the second 50 times.
STOPS_AT_SECOND = 6.0
PROBE = ["My dog is called Rex and he is four years old.", "The weather is nice, is it not?"]
TALKS = [conversation(f"c{n}", f"p{n}", f"What do you think of number {n}?", "No idea.") for n in range(8)]


def test_an_answer_depends_on_its_question_alone(ray_cluster: None, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = [
        {
            "answer_id": f"m{n:02d}~0",
            "context_id": f"m{n:02d}",
            "prompt_ids": prompt_ids(tokenizer, [Turn("user", f"Tea number {n * n}?")], 100),
        }
        for n in range(12)
    ]
    asked = pa.Table.from_pylist(rows, schema=ANSWERS_SCHEMA)
    decoding = Decoding(8, seed=3)
    one = answer_questions(tiny_model, asked, decoding, AnswersConfig(max_batch=64), "float32")
    backwards = asked.take(list(reversed(range(12))))
    two = answer_questions(tiny_model, backwards, decoding, AnswersConfig(max_batch=2, actors=2), "float32")
    assert one.equals(two) and one["answer_id"].to_pylist() == [row["answer_id"] for row in rows]
    assert set(one["finish_reason"].to_pylist()) <= {"stop", "length"} and any(one["text"].to_pylist())
    other = answer_questions(tiny_model, asked, replace(decoding, seed=4), AnswersConfig(), "float32")
    assert other["text"] != one["text"]


@pytest.mark.parametrize(
    ("perplexity_stop", "trained"), [pytest.param(1.01, 1, marks=pytest.mark.slow), (STOPS_AT_SECOND, 2)]
)
def test_iterations_stop_when_people_surprise_the_model(
    ray_cluster: None, tiny_model: Path, storage: Storage, perplexity_stop: float, trained: int
) -> None:
    """A rate that ruins the model. The first iteration is judged all the same, a later one is undone."""
    models = Registry(storage, "models")
    with models.publish(models.reserve(), {}, "") as folder:
        for path in tiny_model.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    encoder = load_encoder()
    pairs = [Pair("Tea?", f"Yes, cup {n}.", float(n % 2)) for n in range(12)]
    reward = storage.path("rewards/v0001")
    reward.mkdir(parents=True)
    PairLogistic.fit(pairs, encoder, 0.1).save(reward)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    with storage.publish("rounds/0001/curate") as folder:
        own = talk_rows([("Hello", "I like tea and long walks by the sea.")] * 4, tokenizer, 64, "", "served")
        pq.write_table(own, folder / "training_set.parquet")
    train = {
        "iterations": 4,
        "objective": "pairwise_cringe",
        "answers": {"per_context": 2},
        "perplexity_stop": perplexity_stop,
        "lr": 0.03,
        "epochs": 4,
        "cpus_per_worker": 0.5,
        "dtype": "float32",
    }
    config = Config.model_validate(
        {
            "train": train,
            "model": {"dtype": "float32"},
            "chat": {"max_new_tokens": 8},
            "metrics": {"wandb": "disabled"},
        }
    )
    said: list[str] = []
    slice_ = Slice(storage.path("slice.parquet"))
    write(slice_.path, [to_table(TALKS)])
    training = Training(
        storage,
        models,
        config,
        Metrics(storage.path("metrics"), config.metrics, "t"),
        PLAN,
        reward,
        None,
        slice_,
        lambda person: True,
        lambda: [],
        PROBE,
        said.append,
    )
    training.publish_candidate("rounds/0001/curate")
    results = models.lineage("v0002")["iterations"]
    # How fast the rate ruins the model differs between processors: one more iteration may pass.
    assert len(results) == 1 if trained == 1 else len(results) >= 2
    assert [result["kept"] for result in results] == [True] * (len(results) - 1) + [trained == 1]
    assert [result["stop"] for result in results] == [False] * (len(results) - 1) + [True]
    best, last = [result for result in results if result["kept"]][-1], results[-1]
    assert last["perplexity"] > perplexity_stop * last["champions_perplexity"]
    assert "this is the last iteration" in said[-1] and said[-1].endswith("undone") == (trained == 2)
    of_candidate = perplexity(load_model(models.folder("v0002"), "float32"), PROBE).value
    assert of_candidate == pytest.approx(best["perplexity"], rel=1e-4)
    assert not list(storage.path("rounds/0001/iterations").glob("*/weights"))
