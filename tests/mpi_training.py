"""Data-parallel training for tests: run by a launcher, prints on rank 0 what the ranks end with.

mpirun -n 2 python tests/mpi_training.py train float64 parameters.npz
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

import fastrnn
from fastrnn.distributed import Ranks, connect, launched

STEPS, SAMPLES, T = 50, 37, 6  # no number of ranks shares 37 samples evenly


def train(ranks: Ranks, dtype: str) -> dict[str, np.ndarray]:
    """Train on ragged batches, in which many steps have no label, and return the parameters."""
    rng = np.random.default_rng(0)
    parameters = fastrnn.initialize_parameters(4, 8, 3, seed=1 if ranks.rank == 0 else None)
    parameters = {name: array.astype(dtype) for name, array in parameters.items()}
    ranks.broadcast(parameters)
    optimizer = fastrnn.SGD(parameters, learning_rate=0.3, momentum=0.5)
    for _ in range(STEPS):
        x = rng.standard_normal((4, SAMPLES, T)).astype(dtype)
        lengths, labels = rng.integers(0, T + 1, SAMPLES), rng.integers(-1, 3, (SAMPLES, T))
        labels[np.arange(T) >= lengths[:, np.newaxis]] = -1
        mine = ranks.share(np.arange(SAMPLES))

        a0 = np.zeros((8, len(mine)), dtype)
        _, y_pred, caches = fastrnn.rnn_forward(x[:, mine], a0, parameters, lengths[mine])
        loss, gradients = fastrnn.output_backward(y_pred, labels[mine], caches, reduction="sum")
        gradients |= fastrnn.rnn_backward(gradients["da"], caches)
        found = ranks.reduce(gradients, loss, int((labels[mine] >= 0).sum()))
        assert found.labelled == (labels >= 0).sum()
        fastrnn.clip_gradients(gradients, 0.5)
        optimizer.step(gradients)
    ranks.check_in_sync(parameters)
    return parameters


def main(what: str, dtype: str, path: str) -> None:
    """Train, or fail in one of the ways that end a job."""
    ranks = connect() if launched() else Ranks()
    last = ranks.rank == ranks.size - 1
    parameters = train(ranks, dtype)
    if what == "raise" and last:
        raise ArithmeticError("nobody catches this")
    if what == "die" and last:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "differ" and last:
        parameters["Waa"][0, 0] = np.nextafter(parameters["Waa"][0, 0], 1)
    ranks.check_in_sync(parameters)
    if ranks.rank == 0:
        np.savez(path, **parameters)


if __name__ == "__main__":
    main(*sys.argv[1:])
