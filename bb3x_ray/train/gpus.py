"""GPUs that a plan can be made for: memory and peak rates, as their makers publish them."""

import os
from dataclasses import dataclass

from bb3x_ray.schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device, and the memory of the machines that it usually is rented in.

    memory_gib      what CUDA reports, which is a little below the number in the name
    half_tflops     dense 16-bit matrix products with float32 sums, 10¹² operations a second
    fp32_tflops     float32, not TF32
    bandwidth_gbs   of its memory, 10⁹ bytes a second
    link_gbs        10⁹ bytes a second that collectives reach one way between GPUs of a node: an assumption
    host_gib        memory of the node per GPU: an assumption, `--node-memory` replaces it
    bfloat16        multiplies it in hardware
    """

    name: str
    memory_gib: float
    half_tflops: float
    fp32_tflops: float
    bandwidth_gbs: float
    link_gbs: float
    host_gib: float
    bfloat16: bool = True

    @property
    def is_cpu(self) -> bool:
        return self.name == "CPU"


GPUS = (
    Gpu("H200", 139.8, 989, 67, 4800, 300, 256),
    Gpu("H100", 79.1, 989, 67, 3350, 300, 256),
    Gpu("A100", 79.1, 312, 19.5, 2039, 200, 144),
    Gpu("A100-40", 39.4, 312, 19.5, 1555, 200, 144),
    Gpu("L40S", 44.4, 362, 91.6, 864, 20, 96),
    Gpu("A10G", 22.1, 70, 31.2, 600, 10, 48),
    Gpu("L4", 22.0, 121, 30.3, 300, 20, 48),
    Gpu("RTX4090", 23.5, 165, 82.6, 1008, 20, 64),
    Gpu("T4", 14.6, 65, 8.1, 320, 10, 48, bfloat16=False),
)

# A core of today's servers: two float32 products of eight or sixteen numbers a cycle.
_CORE_TFLOPS, _CORE_BANDWIDTH = 0.1, 10.0


def find_gpu(name: str) -> Gpu:
    """By name, whatever its case, blanks and hyphens. Raises UserError that lists the known ones."""
    wanted = _plain(name).removesuffix("80").removesuffix("80gb") or name
    for gpu in GPUS:
        if _plain(gpu.name) in (wanted, _plain(name).removesuffix("gb")):
            return gpu
    raise UserError(f"--gpu {name}: unknown; known are {', '.join(gpu.name for gpu in GPUS)}.")


def gpu_of_device(name: str) -> Gpu | None:
    """The GPU that CUDA calls so ("NVIDIA H100 80GB HBM3"); None where its peak is not known."""
    words = "".join(c if c.isalnum() else " " for c in name.lower().replace("rtx ", "rtx")).split()
    if {"pcie", "nvl"} & {*words} and "a100" not in words:  # slower than those of the same name
        return None
    return next((gpu for gpu in GPUS if gpu.name.lower() in words), None)


def this_machine() -> Gpu:
    """This machine as a device that trains without a GPU, on all cores that are ours."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    bandwidth = _CORE_BANDWIDTH * cores
    return Gpu(
        "CPU", memory, _CORE_TFLOPS * cores, _CORE_TFLOPS * cores, bandwidth, 1.0, memory, bfloat16=False
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum()).removeprefix("nvidia")
