"""Ranks that are threads of this process, so that tests of them need no MPI."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fastrnn.distributed import Ranks


class ThreadComm:
    """What `Ranks` uses of a communicator, among threads of one process."""

    def __init__(self, rank, shared, barrier):
        self.rank, self.shared, self.barrier = rank, shared, barrier

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return len(self.shared)

    def allgather(self, value):
        self.shared[self.rank] = value
        self.barrier.wait(timeout=60)
        values = list(self.shared)
        self.barrier.wait(timeout=60)
        return values

    def Allreduce(self, own, total):
        assert own.flags.c_contiguous
        np.copyto(total, sum(self.allgather(own)))
        self.barrier.wait(timeout=60)

    def Bcast(self, array, root):
        assert array.flags.c_contiguous
        array[...] = self.allgather(array.copy())[root]


def on_ranks(size, function):
    """Results of `function(ranks)` by rank."""
    shared, barrier = [None] * size, threading.Barrier(size)
    ranks = [Ranks(ThreadComm(rank, shared, barrier)) for rank in range(size)]
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(function, ranks))
