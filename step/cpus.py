"""How many CPUs this process may use (torch-free)."""

import os


def available_cpus() -> int:
    """Returns how many CPUs the system lets this process run on, which a container or taskset may have lowered."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
