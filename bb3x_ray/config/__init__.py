"""The config tree: every key with its default and its meaning. `config_file.py` reads it.

Every room is handed its own section (law 3).
"""

from typing import Literal

from pydantic import Field

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
