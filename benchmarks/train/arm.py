"""One run of one arm, in a process of its own: `python -m benchmarks.train.arm JOB.json OUT.json`.

A fresh process for each run keeps one arm's hooks, allocator and optimizer out of another's time.
Start-up, loading and one small step are not counted.
"""

import dataclasses
import importlib
import json
import os
import resource
import sys
from pathlib import Path

from bb3x_ray.train.keep_memory import KEEP_MEMORY
from benchmarks.train.job import Job, Measured

ARMS = ("pairwise", "kto", "plain", "fused", "ours", "stage1")
PACKED = ("plain", "fused", "ours", "stage1")


def measure(job: Job) -> Measured:
    import torch

    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    measured: Measured = importlib.import_module(f"benchmarks.train.{job.arm}").measure(job)
    measured.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return measured


def environment(threads: int) -> dict[str, str]:
    """For a process of an arm: all libraries use as many threads, none looks for a network.

    glibc keeps freed memory, as in our workers: that helps every arm.
    """
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    every = {**dict.fromkeys(names, count), **quiet, **KEEP_MEMORY}
    return {**os.environ, **every, "DS_ACCELERATOR": "cpu"}


if __name__ == "__main__":
    found = measure(Job.load(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(dataclasses.asdict(found)))
