"""Environment of a process that trains on CPUs: what it frees it keeps, for its next step.

glibc gives every large block back to the kernel, which clears the pages of the next one: about a tenth of a
step. Blocks come from one heap that does not shrink, in huge pages where the kernel has them. Source: glibc's
manual, "Memory Allocation Tunables"; other C libraries ignore them.
"""

KEEP_MEMORY = {
    "GLIBC_TUNABLES": ":".join(
        [
            "glibc.malloc.mmap_max=0",
            f"glibc.malloc.trim_threshold={2**40}",
            f"glibc.malloc.top_pad={2**28}",
            "glibc.malloc.hugetlb=1",
        ]
    )
}
