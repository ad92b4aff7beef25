"""Blocks of a wide sum side by side, each on one thread.

Torch splits each operation over its threads, and they meet after each. On a block that stays in
cache an operation takes some tenths of a millisecond, of which a second thread saves a quarter.
Blocks do not depend on one another: a thread takes a whole one, and the next when it is done.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Block = TypeVar("Block")

# Blocks of 2,048 peaks took as long side by side as one after another at two a thread, and three
# quarters of the time at four.
_LEAST_PER_THREAD = 4


def side_by_side(
    function: Callable[[Block], None],
    blocks: Sequence[Block],
    device: torch.device,
    from_n_blocks: int | None = None,
) -> None:
    """Call a function with each block, without a record of gradients.

    On a CPU as many blocks are under way as torch has threads. A few blocks, of which torch's
    threads share each, and those of an accelerator, which has a queue of its own, follow one
    another.

    Parameters
    ----------
    function
        Writes to where no other block reads or writes. It should allocate nothing that outlives
        its call, which would fragment the memory from block to block. Runs outside of autocast.
    blocks
        The blocks.
    device
        Where their tensors are.
    from_n_blocks
        Fewer blocks follow one another, with all of torch's threads on each; None for four a
        thread.
    """
    n_threads = torch.get_num_threads()
    if from_n_blocks is None:
        from_n_blocks = _LEAST_PER_THREAD * n_threads
    if device.type != "cpu" or n_threads == 1 or len(blocks) < from_n_blocks:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for block in blocks:
                function(block)
        return
    is_inference = torch.is_inference_mode_enabled()

    def quietly(block: Block) -> None:
        # what a thread records and how it computes is its own setting
        with torch.inference_mode(is_inference), torch.no_grad():
            function(block)

    # threads do not survive a fork: a process has its own
    for _ in _workers(n_threads, os.getpid()).map(quietly, blocks):
        pass  # an error of a block is raised here


@cache
def _workers(n_threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of a process on each of which torch computes alone."""
    del process
    workers = ThreadPoolExecutor(n_threads, thread_name_prefix="scmvp")
    all_there = threading.Barrier(n_threads)

    def compute_alone() -> None:
        torch.get_num_threads()  # a thread takes over the number of the process at the first look
        torch.set_num_threads(1)
        all_there.wait()

    for future in [workers.submit(compute_alone) for _ in range(n_threads)]:
        future.result()
    torch.set_num_threads(n_threads)  # the number that threads to come take over
    return workers
