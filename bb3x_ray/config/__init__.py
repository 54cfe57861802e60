"""The config tree: every key with its default and its meaning. `config_file.py` reads it.

Every room is handed its own section (law 3).
"""

from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from bb3x_ray.config.learning import (
    AnswersConfig,
    CurateConfig,
    EvaluateConfig,
    GateConfig,
    LoraConfig,
    MixEntry,
    TrainConfig,
)
from bb3x_ray.config.listening import (
    LogConfig,
    RewardConfig,
    SafetyConfig,
    TalkConfig,
    TrustConfig,
    TrustMethod,
)
from bb3x_ray.config.section import (
    Section,
)
from bb3x_ray.config.talking import (
    CanaryConfig,
    ChatConfig,
    ModelConfig,
    ModulesConfig,
    SafetyRepliesConfig,
    ServeConfig,
    VllmConfig,
)

__all__ = [
    "AnswersConfig",
    "CanaryConfig",
    "ChatConfig",
    "Config",
    "CurateConfig",
    "EvaluateConfig",
    "GateConfig",
    "LogConfig",
    "LoraConfig",
    "MetricsConfig",
    "MixEntry",
    "ModelConfig",
    "ModulesConfig",
    "RayConfig",
    "RewardConfig",
    "SafetyConfig",
    "SafetyRepliesConfig",
    "Section",
    "ServeConfig",
    "StorageConfig",
    "TalkConfig",
    "TrainConfig",
    "TrustConfig",
    "TrustMethod",
    "VllmConfig",
]


class StorageConfig(Section):
    root: str = Field("store", description="folder that holds everything; on a cluster, on a shared volume")


class RayConfig(Section):
    address: str | None = Field(
        None, description="a cluster's address; null starts Ray here, or joins the job's"
    )
    num_cpus: int = Field(8, ge=1, description="logical CPUs declared when Ray is started here")
    object_store_mb: int = Field(300, ge=80)


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

    @model_validator(mode="after")
    def _a_canary_has_room_for_two_versions(self) -> "Config":
        """Else it would begin, and nobody would ever talk to its candidate."""
        cure = _cure_for_one_version(self.serve, self.train.lora)
        if self.canary.share and cure:
            raise PydanticCustomError(
                "canary_needs_two",
                "canary.share above 0 needs two versions in memory: {cure}",
                {"cure": cure},
            )
        return self


def _cure_for_one_version(serve: ServeConfig, lora: LoraConfig) -> str:
    """What to set where a candidate cannot be in memory beside the champion; "" where it can."""
    adapters = lora.publish == "adapter"
    if serve.engine == "vllm" and not (adapters and serve.vllm.adapters):
        return (
            "serve.engine=vllm holds one set of whole weights; set train.lora.publish=adapter and "
            "serve.vllm.adapters=2, or serve.engine=continuous, or canary.share=0"
        )
    # `lanes` leaves adapters beside the weights that they share; vllm and openai do not drain by this key.
    drains = serve.engine in ("auto", "continuous") or (serve.engine == "lanes" and not adapters)
    if serve.handoff == "drain" and drains:
        return "serve.handoff=drain has room for one; set serve.handoff=beside, or canary.share=0"
    return ""
