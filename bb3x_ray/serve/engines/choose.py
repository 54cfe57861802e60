"""The engine that the config names, answering with its first version."""

import os
from pathlib import Path
from typing import Any

import torch

from bb3x_ray.config import ChatConfig, ModelConfig, ServeConfig
from bb3x_ray.precision import fast_dtype
from bb3x_ray.serve.engines.continuous import Continuous
from bb3x_ray.serve.engines.lanes import Lanes
from bb3x_ray.serve.engines.openai_server import OpenAIServer
from bb3x_ray.serve.engines.protocol import Engine
from bb3x_ray.serve.engines.vllm import Vllm


def open_engine(
    version: str, folder: Path, serve: ServeConfig, chat: ChatConfig, model: ModelConfig
) -> Engine:
    """Blocks until it can answer; raises UserError when the version or the engine cannot be used."""
    limits: dict[str, Any] = {
        "max_batch": serve.max_batch,
        "max_queued": serve.max_queued,
        "max_context_tokens": chat.max_context_tokens,
    }
    drain = serve.drain_seconds if serve.handoff == "drain" else None
    match engine_kind(serve):
        case "lanes":
            return Lanes(version, folder, **limits, dtype=model.dtype, drain_seconds=drain)
        case "continuous":
            return Continuous(
                version,
                folder,
                **limits,
                max_reply_tokens=serve.max_reply_tokens,
                dtype=model.dtype,
                drain_seconds=drain,
            )
        case "vllm":
            return Vllm(
                version,
                folder,
                **limits,
                max_reply_tokens=serve.max_reply_tokens,
                dtype=_vllm_dtype(model.dtype),
                drain_seconds=serve.drain_seconds,
                config=serve.vllm,
            )
        case _:
            return OpenAIServer(
                version,
                url=serve.engine_url,
                key=os.environ.get(serve.engine_key_variable, ""),
                names=serve.engine_models,
                max_waiting=serve.max_batch + serve.max_queued,
                timeout_s=serve.engine_timeout_s,
                retries=serve.engine_retries,
            )


def engine_kind(serve: ServeConfig) -> str:
    """`auto` made definite: continuous batching where there is a GPU, dynamic batches on a CPU."""
    if serve.engine != "auto":
        return serve.engine
    return "continuous" if torch.cuda.is_available() else "lanes"


def _vllm_dtype(dtype: str) -> str:
    if dtype != "auto":
        return dtype
    return str(fast_dtype(torch.device("cuda"))).removeprefix("torch.")
