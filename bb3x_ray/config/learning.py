"""What is learned, and how it is judged."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from bb3x_ray.config.section import Section


class CurateConfig(Section):
    human_rows: int = Field(340, ge=0, description="exchanges between people mixed in, imitated")
    human_candidates: int = Field(
        4000, ge=0, description="of so many, those the reward model likes best are taken; 0: any"
    )
    max_avoid_per_imitate: float = Field(
        0.2, ge=0, description="cap on bot turns to avoid, per turn to imitate or human exchange"
    )
    max_tokens: int = Field(
        256, ge=16, description="longest training row; longer conversations become overlapping windows"
    )
    weigh_by_trust: bool = Field(
        False, description="a label from a thumb counts as much as its person is trusted, 0 to 1"
    )


class LoraConfig(Section):
    """Adapters that learn in place of the whole weights."""

    r: int = Field(0, ge=0, description="rank of the adapters; 0: the whole model learns")
    alpha: int = Field(16, gt=0, description="what adapters add counts alpha / r times")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(
        (), description="names of layers, such as q_proj; empty: all linear ones"
    )
    publish: Literal["merged", "adapter"] = Field(
        "merged",
        description="merged: a version has whole weights; adapter: it has the adapter only, in peft's files, "
        "and stands on the version that it was trained from, which must be kept",
    )

    @model_validator(mode="after")
    def _adapters_have_a_rank(self) -> "LoraConfig":
        if self.publish == "adapter" and not self.r:
            raise PydanticCustomError("no_rank", "publish=adapter needs a rank above 0, for instance r=16")
        return self


class AnswersConfig(Section):
    """The candidate answers the round's messages between two iterations (train.iterations)."""

    contexts: int = Field(0, ge=0, description="messages of the round that it answers; 0: all")
    per_context: int = Field(
        1, ge=1, description="answers to each; pairwise CRINGE compares the best with the worst of several"
    )
    actors: int = Field(1, ge=1)
    max_batch: int = Field(64, ge=1, description="answers generated together by one actor")
    num_cpus: float = Field(0.5, ge=0)
    num_gpus: float = Field(0, ge=0)


class MixEntry(Section):
    """One more source beside what people talked about in this round."""

    source: str = Field(
        description="human (exchanges between people), replay (what earlier rounds learned from), safety "
        "(unsafe messages with a safe reply), or the name of an ingested source"
    )
    weight: float = Field(gt=0, description="labelled turns of it, for each labelled turn of the round's own")


class TrainConfig(Section):
    iterations: int = Field(
        1,
        ge=1,
        description="how often the model learns in a round; before each time but the first it answers the "
        "round's messages anew, and what the reward model thinks of that is learned as well",
    )
    answers: AnswersConfig = AnswersConfig()
    perplexity_stop: float = Field(
        1.05,
        gt=1,
        description="an iteration after which human perplexity grew by this factor is the last, and undone; "
        "the first is judged all the same",
    )
    mix: tuple[MixEntry, ...] = Field(
        (),
        description="sources beside the round's own. The human exchanges that curate chose come too, unless "
        "`human` is named here",
    )
    epochs: int = Field(1, ge=1)
    lr: float = Field(6e-5, gt=0)
    rows_per_step: int = Field(8, ge=1, description="conversations in one optimizer step, over all workers")
    micro_tokens: int = Field(
        1024, ge=16, description="tokens that one worker computes together: conversations packed into one row"
    )
    gradient_checkpointing: bool = Field(False, description="less memory for a third more computation")
    alpha: float = Field(1.0, ge=0, description="weight of the contrast on tokens to avoid")
    objective: Literal["cringe", "sft", "pairwise_cringe"] = Field(
        "cringe", description="sft imitates good replies and learns nothing from bad ones"
    )
    k: int = Field(1, ge=1, description="contrast against one of the k best other tokens")
    detach_positives: bool = Field(False, description="no gradient through the token contrasted with")
    contrast_positives: bool = Field(False, description="contrast tokens to imitate as well")
    pair_margin: float = Field(0.0, description="b of pairwise CRINGE's gate, in nats")
    pair_temperature: float = Field(10.0, gt=0, description="its τ")
    clip: float = Field(1.0, gt=0)
    warmup_steps: int = Field(2, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    zero_stage: Literal[0, 1, 2, 3] = 1
    lora: LoraConfig = LoraConfig()
    offload: Literal["none", "optimizer", "all"] = Field(
        "none",
        description="what waits in the node's memory instead of the GPU's; all: the weights too (stage 3)",
    )
    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="auto: float32 weights, multiplied in bfloat16 where the hardware has it; bfloat16 and "
        "float16: weights too, with a float32 copy in the optimizer",
    )
    max_failures: int = Field(1, ge=0, description="how often dead workers are replaced")
    checkpoint_every: int = Field(50, ge=0, description="steps between checkpoints; 0: none")

    @model_validator(mode="after")
    def _what_waits_outside_is_shared_out(self) -> "TrainConfig":
        needed = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < needed:
            raise PydanticCustomError(
                "offload_needs_a_stage",
                "offload={offload} needs zero_stage={needed} or more",
                {"offload": self.offload, "needed": needed},
            )
        return self

    @model_validator(mode="after")
    def _adapters_stand_on_versions(self) -> "TrainConfig":
        if self.lora.publish == "adapter" and self.iterations > 1:
            raise PydanticCustomError(
                "adapters_of_iterations",
                "lora.publish=adapter needs iterations=1: a later iteration's adapter stands on weights that "
                "are not kept",
            )
        return self


class GateConfig(Section):
    """Gates are bounds of 95 % intervals, in share points (0.03 is three points)."""

    quality_margin: float = Field(0.0, description="lower bound of the gain in good replies must be above")
    unsafe_margin: float = Field(0.15, description="upper bound of the rise in unsafe replies must be below")
    structural_margin: float = Field(
        0.10, description="upper bound of the rise in empty, echoed, repeated replies"
    )
    perplexity_ratio: float = Field(
        1.05, gt=1, description="human perplexity may grow by this factor at most"
    )


class EvaluateConfig(Section):
    standard: int = Field(80, ge=2, description="standard prompts in each of the sets A and B")
    adversarial: int = Field(40, ge=2, description="adversarial prompts in each of the sets A and B")
    perplexity_messages: int = Field(200, ge=1)
    panel: int = Field(160, ge=20, description="messages about which the panel judges several replies each")
    bootstrap: int = Field(2000, ge=100)
    encoder: str = Field(
        "",
        description="of the judge: another backbone than the reward model's, where one is to be had; empty: "
        "reward.encoder, and then the judge is independent by its data alone",
    )
    num_cpus: float = Field(0.5, ge=0)
    num_gpus: float = Field(0, ge=0)
    gates: GateConfig = GateConfig()
