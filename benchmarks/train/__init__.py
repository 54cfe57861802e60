"""Training's speed and memory beside its peers, in one run: `make bench-train`. On a GPU: gpu.py.

One file an arm (pairwise, kto, plain, fused, ours), each in a process of its own; `memory.py` and `limit.py`
measure what is not a rate.
"""
