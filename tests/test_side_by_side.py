"""Blocks side by side do what they do one after another, whatever thread they are on."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest
import torch

from scmvp_scvi import _side_by_side
from scmvp_scvi._side_by_side import side_by_side

CPU = torch.device("cpu")
BLOCKS = range(20)
Result = TypeVar("Result")


@pytest.fixture(params=[1, 2])
def one_or_two_threads(request) -> Iterator[None]:
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(1)


def results_of(
    function: Callable[[int], Result],
    blocks: Sequence[int] = BLOCKS,
    device: torch.device = CPU,
) -> list[Result]:
    """Results by block, each of which has to be there."""
    results = {}

    def keep(block: int) -> None:
        results[block] = function(block)

    side_by_side(keep, blocks, device)
    return [results[block] for block in blocks]


def thread_of(_: int) -> int:
    time.sleep(0.01)  # so that no thread is done with all blocks before another has begun
    return threading.get_ident()


@pytest.mark.usefixtures("two_threads")
def test_many_blocks_take_as_many_threads_as_torch_has():
    threads = set(results_of(thread_of))
    assert len(threads) == 2
    assert threading.get_ident() not in threads


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("n_blocks", "device"), [(7, CPU), (20, torch.device("cuda"))])
def test_few_blocks_and_those_of_an_accelerator_stay_on_the_thread_that_asks(n_blocks, device):
    assert set(results_of(thread_of, range(n_blocks), device)) == {threading.get_ident()}


@pytest.mark.usefixtures("two_threads")
def test_two_blocks_take_two_threads_where_that_is_asked_for():
    threads = set()
    side_by_side(lambda block: threads.add(thread_of(block)), range(2), CPU, from_n_blocks=2)
    assert len(threads) == 2


def test_a_single_thread_takes_all_blocks_itself():
    assert set(results_of(thread_of)) == {threading.get_ident()}


@pytest.mark.usefixtures("two_threads")
def test_torch_computes_each_block_on_one_thread_and_keeps_its_number_elsewhere():
    _side_by_side._workers.cache_clear()
    assert set(results_of(lambda _: torch.get_num_threads())) == {1}
    assert torch.get_num_threads() == 2
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


@pytest.mark.usefixtures("one_or_two_threads")
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_nothing_is_recorded_on_any_thread(mode):
    weight = torch.ones(3, requires_grad=True)
    with mode():
        found = results_of(lambda block: block * weight)
    assert not any(f.requires_grad for f in found)
    assert {f.is_inference() for f in found} == {mode is torch.inference_mode}


@pytest.mark.usefixtures("one_or_two_threads")
def test_autocast_of_the_caller_does_not_reach_the_blocks():
    matrix = torch.ones(3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results_of(lambda _: matrix @ matrix)
    assert {f.dtype for f in found} == {torch.float32}


@pytest.mark.usefixtures("one_or_two_threads")
def test_an_error_in_a_block_reaches_the_caller():
    def fail_at_13(block: int) -> None:
        if block == 13:
            raise RuntimeError("block 13")

    with pytest.raises(RuntimeError, match="block 13"):
        side_by_side(fail_at_13, BLOCKS, CPU)


def _sum_in_child(queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(2)
    queue.put(sum(results_of(lambda block: block)))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    results_of(thread_of)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_sum_in_child, args=(queue,), daemon=True)
    child.start()
    assert queue.get(timeout=60) == sum(BLOCKS)
    child.join(timeout=60)
