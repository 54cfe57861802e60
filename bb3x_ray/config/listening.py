"""Who talks, what is kept of it, and what it is worth."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from bb3x_ray.config.section import Section


class LogConfig(Section):
    """Turns and thumbs are acknowledged when their events are durable here."""

    ack: Literal["disk", "shared"] = Field(
        "disk",
        description="what an acknowledged event survives. disk: a killed process; shared: also the loss of "
        "the node that acknowledged it and of its disk, for which log.root says where",
    )
    root: str = Field(
        "",
        description="folder, or object store such as s3://bucket/path, of the events not yet in the table "
        "and of their archive; empty: storage.root. With ack=shared a store, or a folder on a shared volume",
    )
    deidentify: Literal["none", "rules", "names"] = Field(
        "rules",
        description="what is replaced when talk leaves the log for a round or an export. rules: mails, "
        "phones, cards, ids, IP addresses, credentials, house numbers; names: these too (bb3x-ray[pii])",
    )
    seal_seconds: float = Field(2.0, gt=0, description="a segment is sealed when it is this old")
    seal_bytes: int = Field(4_000_000, ge=1000)
    quiet_seconds: float = Field(0, ge=0, description="a conversation is collected when quiet for this long")

    @model_validator(mode="after")
    def _shared_says_where(self) -> "LogConfig":
        if self.ack == "shared" and not self.root:
            raise PydanticCustomError(
                "shared_where",
                "ack=shared needs root=s3://bucket/path, or root= a folder on a volume that outlives a node",
            )
        if self.ack == "disk" and "://" in self.root:
            raise PydanticCustomError(
                "store_is_shared", "an object store as root needs ack=shared: every acknowledgement is a PUT"
            )
        return self


class TalkConfig(Section):
    """Who talks before a round. `people: none` waits for nobody: the round takes what is in the log."""

    people: Literal["simulated", "none"] = "simulated"
    helpers: int = Field(55, ge=0)
    trolls: int = Field(17, ge=0, description="spread over the kinds of SafetyMix")
    conversations_per_person: int = Field(1, ge=1)
    turns_per_conversation: int = Field(3, ge=1)
    thumb_rate: float = Field(1.0, gt=0, le=1, description="share of replies that get a thumb")
    noise: float = Field(0.1, ge=0, lt=0.5, description="share of a helper's thumbs that are wrong")
    corrupted: float = Field(0.8, ge=0, le=1, description="share of a troll's thumbs that follow its kind")
    concurrency: int = Field(72, ge=1)


TrustMethod = Literal[
    "none",
    "example_removal",
    "example_flip",
    "user_removal",
    "user_example",
    "purr",
    "soft_purr",
    "soft_purr_weights",
    "three_stage",
    "confusion",
    "confusion_relabel",
]


class TrustConfig(Section):
    method: TrustMethod = Field(
        "confusion",
        description="how thumbs are cleaned, see reward/trust/methods.py and `bb3x trust benchmark`; "
        "none: every thumb counts",
    )
    folds: int = Field(3, ge=2)
    threshold: float = Field(0.5, gt=0, lt=1, description="people whose trust is below are distrusted")
    min_thumbs: int = Field(2, ge=1, description="nobody is distrusted by fewer thumbs than this")
    evidence: float = Field(
        10.0,
        ge=1,
        description="confusion: nobody is distrusted unless what they did is this many times likelier of "
        "somebody who cannot tell good from bad",
    )
    min_all_thumbs: int = Field(
        60, ge=1, description="nobody is distrusted where all people together gave fewer thumbs than this"
    )
    prior_strength: float = Field(
        2.0,
        gt=0,
        description="pseudo-thumbs of agreement a new person starts with; methods other than confusion",
    )
    alpha: float = Field(0.5, ge=0, description="soft_purr: how much a person's other thumbs count")
    memory: float = Field(
        0.9,
        gt=0,
        le=1,
        description="share of what a person did that is still counted a round later; 1: nothing is forgotten",
    )
    group_false_alarms: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="chance per round that any people without anything in common are taken for a group",
    )
    group_size: int = Field(3, ge=2, description="fewer accounts than this that do the same are no group")


class RewardConfig(Section):
    encoder: str = Field("minilm", description="minilm (embedded) or a Hugging Face encoder")
    learn: Literal["head", "all"] = Field(
        "head",
        description="head: a logistic regression on the frozen encoder's embeddings, for which hundreds of "
        "thumbs are enough; all: the whole backbone, encoder or causal, for many thousands and a GPU",
    )
    l2: float = Field(
        0.3, gt=0, description="penalty on the head's weights: more for thumbs that contradict each other"
    )
    epochs: int = Field(3, ge=1, description="of learning the whole backbone, as the next three")
    lr: float = Field(3e-5, gt=0)
    batch: int = Field(32, ge=1, description="replies in one step, over all workers")
    max_tokens: int = Field(256, ge=16, description="of a reply with its context; what is longer is cut")
    workers: int = Field(1, ge=1, description="that learn together")
    gpus_per_worker: float = Field(0, ge=0)
    imitate_above: float = Field(0.6, ge=0, le=1)
    avoid_below: float = Field(0.4, ge=0, le=1)
    min_actors: int = Field(1, ge=1, description="actors that score, at least")
    max_actors: int = Field(2, ge=1, description="and at most: Ray Data starts more while work waits")
    num_cpus: float = Field(0.5, ge=0, description="of one actor")
    num_gpus: float = Field(0, ge=0, description="of one actor")
    max_chars: int = Field(
        20_000, ge=1, description="a longer reply or context is not scored: its row gets an error"
    )

    @model_validator(mode="after")
    def _actors_in_order(self) -> "RewardConfig":
        if self.min_actors > self.max_actors:
            raise PydanticCustomError("actors_in_order", "min_actors must not be above max_actors")
        return self


class SafetyConfig(Section):
    """What counts as unsafe when turns are scored; never the judge's detector."""

    classifier: str = Field(
        "embedded", description="embedded (trained by us), or a Hugging Face classifier: a folder, a hub name"
    )
    unsafe_labels: tuple[str, ...] = Field(
        (), description="labels of a Hugging Face classifier that mean unsafe, for instance toxic"
    )
    encoder: str = Field(
        "minilm", description="of the embedded classifier: minilm, or a Hugging Face encoder"
    )
    l2: float = Field(1.0, gt=0, description="penalty on the embedded classifier's weights")
    false_alarms: float = Field(
        0.01, gt=0, lt=1, description="share of ordinary texts that may count as unsafe: sets the thresholds"
    )
    ordinary: int = Field(
        2000, ge=200, description="ordinary utterances to learn from, and as many to set the thresholds by"
    )
    files: tuple[str, ...] = Field(
        (), description="more examples: JSON lines with text and unsafe (true or false)"
    )
    extra_words: tuple[str, ...] = Field((), description="words that count as unsafe beside the listed ones")
    allowed_words: tuple[str, ...] = Field((), description="listed words that do not count")
