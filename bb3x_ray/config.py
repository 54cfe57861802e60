"""The config tree: every key with its default and its meaning. `config_file.py` reads it.

Every room is handed its own section (law 3).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=())


class StorageConfig(Section):
    root: str = Field("store", description="folder that holds everything; on a cluster, on a shared volume")


class RayConfig(Section):
    address: str | None = Field(
        None, description="a cluster's address; null starts Ray here, or joins the job's"
    )
    num_cpus: int = Field(8, ge=1, description="logical CPUs declared when Ray is started here")
    object_store_mb: int = Field(300, ge=80)


class ModelConfig(Section):
    source: str = Field(
        "smollm2", description="smollm2 (embedded), a Hugging Face folder, or a name on the hub"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="of serving and judging; auto: bfloat16 where the hardware multiplies it, else float32",
    )


class ChatConfig(Section):
    """How every version is asked to reply, when serving and when judged."""

    system_prompt: str = ""
    max_new_tokens: int = Field(40, ge=1)
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_context_tokens: int = Field(512, ge=16)


class VllmConfig(Section):
    """serve.engine=vllm."""

    tensor_parallel: int = Field(1, ge=1, description="GPUs that hold one copy of the model together")
    memory_share: float = Field(0.85, gt=0, le=1, description="of each GPU, for weights and cache")
    adapters: int = Field(0, ge=0, description="adapter versions that answer at once; 0: none are served")
    adapter_rank: Literal[8, 16, 32, 64, 128, 256, 512] = Field(
        64, description="highest rank; adapters on adapters add theirs up"
    )


class ServeConfig(Section):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    num_replicas: int = Field(1, ge=1)
    num_cpus: float = Field(0.5, ge=0)
    num_gpus: float = Field(0, ge=0)
    threads: int = Field(0, ge=0, description="CPU threads of one replica; 0: as many as there are cores")
    engine: Literal["auto", "lanes", "continuous", "vllm", "openai"] = Field(
        "auto",
        description="what writes the replies. lanes: dynamic batches; continuous: transformers' continuous "
        "batching; vllm: bb3x-ray[vllm]; openai: a server at engine_url. auto: lanes on a CPU, continuous on "
        "a GPU",
    )
    handoff: Literal["beside", "drain"] = Field(
        "beside",
        description="beside: a new version is loaded beside the live one, which takes memory for two; drain: "
        "replies under way end first, requests wait, and then it takes the live one's place",
    )
    drain_seconds: float = Field(
        30, gt=0, description="handoff=drain: replies that are not done after this long end with an error"
    )
    engine_url: str = Field("", description="engine=openai: the server's address, up to and with /v1")
    engine_key_variable: str = Field(
        "BB3X_ENGINE_KEY", description="engine=openai: the environment variable that holds its key"
    )
    engine_models: dict[str, str] = Field(
        {}, description="engine=openai: what the server calls a version, where not by its own name"
    )
    engine_timeout_s: float = Field(60, gt=0, description="engine=openai: longest silence of the server")
    engine_retries: int = Field(
        2, ge=0, description="engine=openai: how often a refused request is sent again"
    )
    vllm: VllmConfig = VllmConfig()
    max_batch: int = Field(64, ge=1, description="replies generated together by one version on one replica")
    max_queued: int = Field(200, ge=1, description="requests that may wait before the server answers 429")
    max_message_chars: int = Field(4000, ge=1)
    max_reply_tokens: int = Field(512, ge=1, description="longest reply that a request may ask for")
    max_body_bytes: int = Field(1_000_000, ge=1000)
    body_seconds: float = Field(30, gt=0, description="within which a request's body must have come")
    write_seconds: float = Field(
        30, gt=0, description="a client that takes nothing of its answer for this long is let go"
    )
    requests_per_minute: int = Field(
        6000, ge=0, description="of one caller (API key, else address) at one replica; 0: no limit"
    )
    tokens_per_minute: int = Field(
        0, ge=0, description="prompt and reply tokens of one caller at one replica; 0: no limit"
    )
    concurrent_requests: int = Field(
        256, ge=0, description="requests of one caller under way at one replica; 0: no limit"
    )
    api_keys_env: str = Field(
        "",
        description="environment variable with API keys, commas between them; then only who sends one is "
        "answered (the page sends none). Empty: everybody is",
    )
    admin_key_env: str = Field(
        "",
        description="environment variable with the key of admin calls (/metrics); empty: only this machine "
        "may make them",
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="origins of other sites, such as https://example.org, whose pages may call the API"
    )

    @model_validator(mode="after")
    def _openai_says_where(self) -> "ServeConfig":
        if self.engine == "openai" and not self.engine_url:
            raise PydanticCustomError(
                "engine_where", "engine=openai needs engine_url=http://host:port/v1, the server's address"
            )
        return self


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


class SafetyRepliesConfig(Section):
    """Canned replies in place of what is unsafe on either side of a turn, by the `safety` classifier."""

    check: Literal["off", "both"] = Field(
        "off",
        description="both: the person's message and the reply, before it is shown; off: neither. The "
        "demo leaves it off: what nobody sees, nobody can rate, and the loop learns from ratings",
    )


class ModulesConfig(Section):
    """BlenderBot 3's modules before and after a reply, each one call of the same model (serve/modules/)."""

    enabled: bool = Field(False, description="off: the reply alone. A model of 135M makes nonsense of them")
    search: Literal["always", "never", "decide"] = "decide"
    memory: Literal["always", "never", "decide"] = "decide"
    entity: Literal["always", "never", "decide"] = Field(
        "decide", description="decide: where neither search nor memory was wanted, or search found nothing"
    )
    remember: Literal["never", "decide"] = Field(
        "decide", description="memories of people who consented, made from both sides of a turn"
    )
    opener: Literal["never", "decide"] = Field(
        "decide", description="people who return are greeted with what is remembered of them"
    )
    search_server: str = Field(
        "",
        description="address of a server of ParlAI's search protocol, which gets queries made of what people "
        "say; empty: `documents` are searched, and nothing leaves the machine",
    )
    search_tries: int = Field(2, ge=1, le=10)
    search_timeout_s: float = Field(5.0, gt=0, description="of one try")
    documents: str = Field("", description="folder of .txt, .md, .jsonl; empty: a few that ship")
    timeout_s: float = Field(30.0, gt=0, description="for all that comes before the reply; then without it")
    max_memories: int = Field(200, ge=1, description="kept of one person")


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


class CanaryConfig(Section):
    """A candidate that passed its verdict is tried on some people before it becomes champion."""

    share: float = Field(
        0,
        ge=0,
        le=50,
        description="percent of people who talk to the candidate; 0: no canary, what passed is champion",
    )
    worse: float = Field(
        0.10, gt=0, lt=1, description="a candidate with so much fewer thumbs up is to be found soon"
    )
    margin: float = Field(
        0.05, gt=0, lt=1, description="it is promoted when it is surely not worse by this much"
    )
    newcomers: float = Field(
        0,
        ge=0,
        le=1,
        description="what a thumb counts of people of whom the candidate's round knew nothing; above 0, "
        "whoever makes accounts can force a rollback",
    )
    score_margin: float = Field(
        0.05, gt=0, lt=1, description="rolled back early when its replies score surely worse by this much"
    )
    unsafe_margin: float = Field(
        0.02, gt=0, lt=1, description="and when surely so many more of them, as a share, are unsafe"
    )
    fewest: int = Field(30, ge=10, description="people in each arm before anything is decided")
    every_seconds: float = Field(60, gt=0, description="how often the watch looks")


class MetricsConfig(Section):
    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: str = "bb3x-ray"


class Config(Section):
    name: str = Field("local", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    rounds: int = Field(2, ge=1)
    seed: int = 0
    storage: StorageConfig = StorageConfig()
    ray: RayConfig = RayConfig()
    model: ModelConfig = ModelConfig()
    chat: ChatConfig = ChatConfig()
    serve: ServeConfig = ServeConfig()
    log: LogConfig = LogConfig()
    talk: TalkConfig = TalkConfig()
    trust: TrustConfig = TrustConfig()
    reward: RewardConfig = RewardConfig()
    safety: SafetyConfig = SafetyConfig()
    safety_replies: SafetyRepliesConfig = SafetyRepliesConfig()
    modules: ModulesConfig = ModulesConfig()
    curate: CurateConfig = CurateConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    canary: CanaryConfig = CanaryConfig()
    metrics: MetricsConfig = MetricsConfig()
