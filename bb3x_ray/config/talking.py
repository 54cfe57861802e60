"""How the model is served, and what a turn is made of."""

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from bb3x_ray.config.section import Section


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
    shutdown_seconds: float = Field(
        180,
        gt=0,
        description="within which a replica that stops has to end its replies: max_reply_tokens at three a "
        "second; longer or slower replies need more",
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
    failure_margin: float = Field(
        0.02, gt=0, lt=1, description="and when surely so many more of its turns, as a share, fail"
    )
    fewest: int = Field(30, ge=10, description="people in each arm before anything is decided")
    every_seconds: float = Field(60, gt=0, description="how often the watch looks")
