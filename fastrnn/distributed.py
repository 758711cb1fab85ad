"""Training on several processes at once: the same parameters everywhere, the data shared out.

Every rank computes the gradients of its share of each global batch, as sums over the labelled
steps; `Ranks.reduce` adds them up over all ranks and divides once, so that a rank with fewer
labelled steps weighs less. What follows, clipping and the optimizer's step, every rank does for
itself on the same numbers, so that the parameters stay the same without being sent again.

    mpirun -n 4 python train.py

mpi4py is imported when `connect` asks for it, and not before.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn import _check, _check_training

Array = NDArray[Any]

#: What Open MPI, and MPICH and its kin, tell a process of how many there are.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")

#: Up to the square of it, float32 counts in two numbers: each of the two stays below 2**24 for
#: up to 4,096 ranks.
_DIGIT = 4096


class OutOfSyncError(RuntimeError):
    """Ranks do not have the same parameters any more."""


class Reduced(NamedTuple):
    """What `Ranks.reduce` found over all ranks."""

    loss: float  #: mean over the labelled steps, 0 without any
    labelled: int  #: labelled steps
    stop: bool  #: whether any rank wants to stop


class Ranks:
    """The processes that train together; without a communicator, this process alone.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        A communicator, or what has its ``Get_rank``, ``Get_size``, ``Allreduce``, ``Bcast`` and
        ``allgather``. `connect` gives that of all processes.

    Attributes
    ----------
    rank : int
        0 to ``size - 1``. Rank 0 is the one to print and to write files.
    size : int

    Examples
    --------
    >>> ranks = Ranks()
    >>> gradients = {"dba": np.array([[6.0]]), "da": np.array([7.0])}
    >>> ranks.reduce(gradients, loss_sum=3.0, count=2)
    Reduced(loss=1.5, labelled=2, stop=False)
    >>> gradients
    {'dba': array([[3.]]), 'da': array([7.])}
    """

    def __init__(self, comm: Any = None) -> None:
        self._comm = comm
        self.rank: int = comm.Get_rank() if comm is not None else 0
        self.size: int = comm.Get_size() if comm is not None else 1

    def share(self, batch: Array) -> Array:
        """Take this rank's samples of a global batch.

        Parameters
        ----------
        batch : ndarray, shape (m, ...)
            The same on every rank: the samples of a step, or their numbers.

        Returns
        -------
        ndarray, shape (m / size rounded up or down, ...)
            Every ``size``-th one, so that sorted lengths are shared out evenly.

        Examples
        --------
        >>> Ranks().share(np.array([5, 3, 8]))
        array([5, 3, 8])
        """
        return batch[self.rank :: self.size]

    def reduce(
        self, gradients: Mapping[str, Array], loss_sum: float, count: int, *, stop: bool = False
    ) -> Reduced:
        """Make sums over this rank's labelled steps means over those of all ranks.

        One ``Allreduce`` of one flat array does it. To be called by all ranks, with gradients of
        the same names and shapes.

        Parameters
        ----------
        gradients : mapping of ndarray
            float32 or float64, summed up and not averaged: ``output_backward(...,
            reduction="sum")`` gives those. Overwritten, but for ``da``, ``dx``, ``da0``, ``dxt``
            and ``da_prev``, which are of one rank's samples and left alone. So let an initial state
            that is trained have another name than ``a0``.
        loss_sum : float
            Sum of the losses of this rank.
        count : int
            Labelled steps of this rank; 0 is allowed.
        stop : bool, default False
            Whether this rank wants to stop, having got a signal for instance.

        Returns
        -------
        Reduced
            ``(loss, labelled, stop)``, the same on every rank.

        Raises
        ------
        TypeError, ValueError
            If a gradient to be overwritten is no ordinary array of float32 or float64 or is
            read-only, `loss_sum` no number, or `count` no integer of 0 or more, below 2**36. It is
            raised before anything is sent, so do not go on after it: the other ranks wait for this
            one.

        Examples
        --------
        See `Ranks`.
        """
        found = _check_training.gradients_to_update(gradients)
        arrays = [found[name] for name in sorted(found)]  # whatever the order of the keys
        loss_sum = _check.real_number("loss_sum", loss_sum)
        count, stop = _check_training.steps_labelled("count", count), bool(stop)
        size = sum(array.size for array in arrays)
        buffer = np.empty(size + 4, np.result_type(np.float32, *(array.dtype for array in arrays)))
        with np.errstate(all="ignore"):
            _gather(arrays, buffer)
            buffer[size:] = loss_sum, count // _DIGIT, count % _DIGIT, stop
            if self._comm is not None:
                own, buffer = buffer, np.empty_like(buffer)
                self._comm.Allreduce(own, buffer)  # the operation is SUM unless another is named
            total = int(buffer[size + 1]) * _DIGIT + int(buffer[size + 2])
            buffer[: size + 1] /= max(total, 1)
            _scatter(buffer, arrays)
        return Reduced(float(buffer[size]), total, bool(buffer[size + 3]))

    def broadcast(self, arrays: Mapping[str, Array]) -> None:
        """Overwrite arrays, in place, by those of rank 0.

        Parameters
        ----------
        arrays : mapping of ndarray
            Of the same names, shapes and dtypes on all ranks: parameters, or the copy that
            ``optimizer.state_dict()`` gives and ``load_state_dict`` takes.

        Raises
        ------
        TypeError, ValueError
            If one is no ordinary array of numbers or is read-only, before anything is sent.

        Examples
        --------
        >>> Ranks().broadcast({"ba": np.zeros((3, 1))})
        """
        found = _check_training.named_arrays("arrays", arrays, dtypes=())
        if self._comm is None:
            return
        for _, array in sorted(found.items()):
            contiguous = np.ascontiguousarray(array).reshape(-1)
            self._comm.Bcast(contiguous, root=0)
            array[...] = contiguous.reshape(array.shape)

    def check_in_sync(self, arrays: Mapping[str, Array]) -> None:
        """Compare arrays of all ranks, by a digest of 16 bytes each.

        Parameters
        ----------
        arrays : mapping of ndarray
            The parameters.

        Raises
        ------
        OutOfSyncError
            On all ranks, if those of any rank differ by a bit from those of rank 0, or by a name,
            a shape or a dtype.
        TypeError
            If one is no ordinary array of numbers. It is raised before anything is sent, so do not
            go on after it: the other ranks wait for this one.

        Examples
        --------
        >>> Ranks().check_in_sync({"ba": np.zeros((3, 1))})
        """
        found = _check_training.named_arrays("arrays", arrays, dtypes=(), to_update=False)
        if self._comm is None:
            return
        digest = hashlib.blake2b(digest_size=16)
        for name, array in sorted(found.items()):
            digest.update(name.encode())
            digest.update(repr((array.dtype, array.shape)).encode())
            digest.update(array.tobytes())
        digests = self._comm.allgather(digest.digest())
        differ = [rank for rank, other in enumerate(digests) if other != digests[0]]
        if differ:
            raise OutOfSyncError(
                f"the parameters of rank {', '.join(map(str, differ))} differ from those of "
                "rank 0: a rank has skipped a step, changed its parameters, or computes otherwise"
            )


def _gather(arrays: list[Array], buffer: Array) -> None:
    start = 0
    for array in arrays:
        buffer[start : start + array.size] = array.reshape(-1)
        start += array.size


def _scatter(buffer: Array, arrays: list[Array]) -> None:
    start = 0
    for array in arrays:
        array[...] = buffer[start : start + array.size].reshape(array.shape)
        start += array.size


def launched() -> bool:
    """Whether an MPI launcher such as ``mpirun`` started this process, by its environment.

    Returns
    -------
    bool
        Known are Open MPI, MPICH, Intel MPI and MVAPICH. mpi4py is not imported.

    Examples
    --------
    >>> ranks = connect() if launched() else Ranks()
    """
    return any(variable in os.environ for variable in _SIZE_VARIABLES)


def connect() -> Ranks:
    """Join the processes that an MPI launcher started.

    From then on an exception that nobody catches aborts all ranks, after its traceback is printed:
    the others would wait for this one for ever.

    Returns
    -------
    Ranks

    Raises
    ------
    ModuleNotFoundError
        If mpi4py is not installed; the extra ``mpi`` installs it and an MPI.

    Examples
    --------
    See `launched`.
    """
    from mpi4py import MPI

    comm = MPI.COMM_WORLD

    def abort(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        traceback.print_exception(kind, error, trace)
        print(f"rank {comm.Get_rank()} failed: aborting all ranks", file=sys.stderr, flush=True)
        comm.Abort(1)

    sys.excepthook = abort
    return Ranks(comm)
