"""What the machine refuses is told apart, each with what to do; everything else stays as it is."""

import errno
import os

import numpy as np
import pytest
import torch

from domainbed_sage.core import limits
from domainbed_sage.core.errors import Stopped, UserError


def os_error(number, *filename):
    return OSError(number, os.strerror(number), *filename)


ALL = (limits.GPU_MEMORY, *limits.LOADERS)
REFUSALS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), limits.GPU_MEMORY),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), limits.GPU_MEMORY),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), limits.GPU_MEMORY),
    (MemoryError(), limits.MEMORY),
    (np._core._exceptions._ArrayMemoryError((10**9, 10**9), np.dtype("f8")), limits.MEMORY),  # type: ignore[attr-defined]
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), limits.MEMORY),
    (os_error(errno.ENOMEM), limits.MEMORY),
    (RuntimeError("unable to mmap 8 bytes from file </torch_1>: Cannot allocate memory (12)"), limits.MEMORY),
    (os_error(errno.EMFILE), limits.OPEN_FILES),
    (os_error(errno.ENFILE, "/data/dog.jpg"), limits.OPEN_FILES),
    (RuntimeError("received 0 items of ancdata"), limits.OPEN_FILES),
    (RuntimeError("Too many open files. Communication with the workers is no longer possible."), limits.OPEN_FILES),
    (
        RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"),
        limits.OPEN_FILES,
    ),
    (RuntimeError("A loader process was ended by SIGKILL"), limits.KILLED),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), limits.KILLED),
    (RuntimeError("A loader process was ended by SIGSEGV"), None),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. "), None),
    (RuntimeError("A loader process was ended by SIGBUS"), limits.SHARED_MEMORY),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"), limits.SHARED_MEMORY),
    (RuntimeError("unable to open shared memory object </torch_1>: No space left (28)"), limits.SHARED_MEMORY),
    (OSError("AF_UNIX path too long"), limits.TEMPORARY),
    (FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']"), limits.TEMPORARY),
    (os_error(errno.ENOSPC, "/scratch/pymp-1f2e3d4c"), limits.TEMPORARY),
    (os_error(errno.ENOSPC), limits.SHARED_MEMORY),
    (os_error(errno.ENOSPC, "/data/cache.bin"), None),
    (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left"), limits.SHARED_MEMORY),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), limits.PROCESSES),
    (RuntimeError("can't start new thread"), limits.PROCESSES),
    (os_error(errno.ENOENT, "/data/dog.jpg"), None),
    (ValueError("bad"), None),
    (Stopped("Stopped after step 3"), None),
    (UserError("MemoryError: these words are the user's own"), None),
]


@pytest.mark.parametrize(("error", "limit"), REFUSALS, ids=lambda value: str(value)[:40])
def test_refusals_are_told_apart(error, limit):
    with pytest.raises(type(error) if limit is None else UserError) as caught, limits.explained(*ALL):
        raise error
    if limit is None:
        assert caught.value is error
    else:
        assert str(caught.value).startswith(f"{limit.meaning} (")
        assert f"). {limit.advice} " in str(caught.value)
        assert caught.value.__cause__ is error


def test_every_limit_is_met_here():
    assert {limit.meaning for _, limit in REFUSALS if limit} == {limit.meaning for limit in (*ALL, *limits.STEP)}


def test_a_step_is_not_a_loader():
    """Kernels have a shared memory of their own, and the disk may be full."""
    for error in (
        RuntimeError("out of resource: shared memory, Required: 180224, Hardware limit: 101376"),
        os_error(errno.ENOSPC),
        os_error(errno.EAGAIN),
    ):
        with pytest.raises(type(error)), limits.explained(*limits.STEP):
            raise error


@pytest.mark.parametrize("words", ["is killed by signal: Killed. ", "is killed by signal: Bus error. It is possible"])
def test_a_loader_that_dies_is_an_error_of_the_step_as_well(words):
    """torch raises it wherever the run is at that moment."""
    with pytest.raises(UserError, match=f"loader process.*{words[:20]}"), limits.explained(*limits.STEP):
        raise RuntimeError(f"DataLoader worker (pid 7) {words}")


def test_long_words_of_the_system_are_cut():
    with pytest.raises(UserError) as caught, limits.explained(*limits.STEP):
        raise torch.OutOfMemoryError("CUDA out of memory. " + "Of the allocated memory, much.\n" * 50)
    reason = str(caught.value).removeprefix(limits.GPU_MEMORY.meaning).partition(limits.GPU_MEMORY.advice)[0]
    assert 100 < len(reason) < limits.REASON + 10
    assert "\n" not in reason
