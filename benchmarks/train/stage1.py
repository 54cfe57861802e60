"""Our step in DeepSpeed's stage 1, which shares the optimizer out: with one worker it only costs."""

from benchmarks.train.job import Job, Measured
from benchmarks.train.ours import measure_in_stage


def measure(job: Job) -> Measured:
    return measure_in_stage(job, 1)
