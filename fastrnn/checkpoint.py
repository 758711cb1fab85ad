"""Checkpoints: all that training needs to go on, in one file that is always whole.

A checkpoint is an ``.npz`` of ordinary arrays, read without pickle: ``parameters/Wax`` and so on,
``optimizer/Wax.mean`` and so on, and ``header``, a JSON text with the rest. A new one is written
beside the old one, forced to the disk and renamed over it, so that whatever moment a process or
its machine stops at, the file holds one whole checkpoint or the other [1]_.

The module imports NumPy and the standard library alone.

.. [1] T. S. Pillai et al., "All file systems are not created equal: on the complexity of crafting
   crash-consistent applications", OSDI 2014, section 2.2.
"""

from __future__ import annotations

import copy
import json
import operator
import os
import signal
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_FORMAT = "fastrnn checkpoint 1"


class Optimizer(Protocol):
    """What has a state: `fastrnn.Adam`, `fastrnn.SGD`, or one of the caller's own."""

    def state_dict(self) -> dict[str, Array]:
        """Copy the state."""

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take over a state, or raise `ValueError` or `TypeError` and change nothing."""


class CheckpointError(ValueError):
    """A file is no whole checkpoint, or of another training; or it cannot hold what came."""


class Progress(NamedTuple):
    """How far training had come."""

    step: int
    epoch: int
    settings: dict[str, Any]


class _Contents(NamedTuple):
    """What a checkpoint holds."""

    parameters: dict[str, Array]
    optimizer: dict[str, Array]
    random_state: dict[str, Any]  #: empty if there is none
    progress: Progress


def save(
    path: str | os.PathLike[str],
    parameters: Mapping[str, Array],
    optimizer: Optimizer,
    *,
    step: int,
    epoch: int,
    rng: np.random.Generator | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint in place of the one that is there, if any.

    Parameters
    ----------
    path : path_like
        The file, or a link to it. What is written before it is renamed has ``.partial`` after the
        name; no two processes or threads may write the same checkpoint at once.
    parameters : mapping of ndarray
        Of any shape, and any dtype of NumPy's but object. Names are strings of at most 1000
        printable characters other than the backslash.
    optimizer : Optimizer
        Its ``state_dict()`` is stored.
    step, epoch : int
        How far training has come, 0 or more.
    rng : numpy.random.Generator, optional
        Its state is stored, as JSON.
    settings : mapping, optional
        What JSON can hold, and numbers and arrays of NumPy. `load` returns it, to compare, as JSON
        has it: tuples and arrays as lists, keys as strings.

    Raises
    ------
    CheckpointError
        If an argument is not as above; nothing is written then.
    OSError
        If the file cannot be written. The one that is there stays.

    Examples
    --------
    >>> import tempfile, fastrnn
    >>> parameters = fastrnn.initialize_parameters(2, 3, 2, seed=0)
    >>> optimizer = fastrnn.Adam(parameters)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "rnn.npz")
    ...     save(path, parameters, optimizer, step=40, epoch=2)
    ...     load(path, parameters, optimizer)
    Progress(step=40, epoch=2, settings={})
    """
    header = {
        "format": _FORMAT,
        "step": _count("step", step),
        "epoch": _count("epoch", epoch),
        "random_state": None if rng is None else _bit_generator(rng).state,
    }
    arrays = {"header": np.array(_as_json(header, {} if settings is None else settings))}
    arrays |= _arrays_by_key("parameters", parameters)
    arrays |= _arrays_by_key("optimizer", _asked("state_dict", optimizer)())
    _replace(Path(path), arrays)


def _arrays_by_key(part: str, given: Any) -> dict[str, Array]:
    """Arrays by what they are called in the file; refuses what could not be loaded as it is."""
    arrays = {}
    for name, array in _mapping(part, given).items():
        if not (isinstance(name, str) and name.isprintable() and len(name) <= 1000):
            raise CheckpointError(f"{part} must have printable names, got {_shown(name):.40}")
        if "\\" in name:  # which zipfile takes for a slash on Windows
            raise CheckpointError(f"{part} must have names without a backslash, got {name!r}")
        if not _is_ordinary(array):
            found = type(array).__name__
            raise CheckpointError(f"{part}[{name!r}] must be an ordinary array, got {found}")
        if array.dtype.hasobject or _stored(array.dtype) != array.dtype:
            found = array.dtype
            raise CheckpointError(f"{part}[{name!r}] must be of a dtype of NumPy's, got {found}")
        arrays[f"{part}/{name}"] = array
    return arrays


def _is_ordinary(value: Any) -> bool:
    """Whether a value is an array, and no masked one; for most without an import of `numpy.ma`."""
    if type(value) is np.ndarray:
        return True
    return isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)


def _stored(dtype: np.dtype[Any]) -> Any:
    """What a dtype is once it is read again."""
    return np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype))


def _mapping(name: str, given: Any) -> Mapping[Any, Any]:
    """Check a mapping of arrays."""
    if not isinstance(given, Mapping):
        raise CheckpointError(f"{name} must be a mapping of arrays, got {type(given).__name__}")
    return given


def _count(name: str, value: Any) -> int:
    """Check a step or an epoch."""
    try:
        number = -1 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise CheckpointError(
            f"{name} must be an integer of 0 or more, below 2**63, got {_shown(value)}"
        )
    return number


def _shown(value: Any) -> str:
    """The value as Python writes it, or its type where that is refused, as of huge integers."""
    try:
        return repr(value)
    except ValueError:
        return f"an object of type {type(value).__name__}"


def _bit_generator(rng: Any) -> Any:
    """What has the random state, to get or to set."""
    if not isinstance(rng, np.random.Generator):
        raise CheckpointError(f"rng must be a numpy.random.Generator, got {rng!r}")
    return rng.bit_generator


def _asked(method: str, optimizer: Any) -> Any:
    """A method of an optimizer."""
    if not callable(getattr(optimizer, method, None)):
        raise CheckpointError(f"optimizer must have a method {method}, got {optimizer!r}")
    return getattr(optimizer, method)


def _as_json(header: Mapping[str, Any], settings: Any) -> str:
    """The text of a header with settings; states of some generators hold arrays, as these may."""
    try:
        fields = {**header, "settings": dict(settings)}
        return json.dumps(fields, default=operator.methodcaller("tolist"))
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"settings must be a mapping of what JSON can hold, got {_shown(settings)}: {error}"
        ) from error


def _replace(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays to a file that is either the old one or the new one at any moment."""
    with suppress(FileNotFoundError):
        os.stat(path)  # which fails where links lead nowhere but to each other
    path = Path(os.path.realpath(path))  # a link stays one, to what is written
    partial = path.with_name(path.name + ".partial")
    file = open(partial, "wb")
    try:
        with file:
            _write(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if os.name == "posix":
        # The name is data of the directory, which has a place on the disk of its own.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _write(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write an ``.npz``. `numpy.savez` would pickle objects: only NumPy 2 can be told not to."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load(
    path: str | os.PathLike[str],
    parameters: Mapping[str, Array],
    optimizer: Optimizer,
    *,
    rng: np.random.Generator | None = None,
) -> Progress:
    """Read a checkpoint into what a training begins with.

    Parameters
    ----------
    path : path_like
        A file that `save` wrote.
    parameters : mapping of ndarray
        Overwritten in place. Names, shapes and dtypes must be those in the file.
    optimizer : Optimizer
        Takes over the state in the file.
    rng : numpy.random.Generator, optional
        Takes over the state in the file, which must hold one of the same kind.

    Returns
    -------
    Progress
        ``(step, epoch, settings)`` as saved.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    CheckpointError
        If it is truncated, damaged or no checkpoint, or one of other parameters, of another
        optimizer or of another random generator, or if an argument is not as above or cannot be
        overwritten. Nothing is overwritten then.

    Examples
    --------
    See `save`.
    """
    stored = _read(Path(path))
    own = _compared_parameters(path, stored.parameters, parameters)
    if rng is not None:
        _compare_random_state(path, stored.random_state, _bit_generator(rng))
    take_over = _asked("load_state_dict", optimizer)
    try:
        take_over(stored.optimizer)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is of another optimizer: {error}") from error
    # Nothing can fail any more.
    for name, array in own.items():
        np.copyto(array, stored.parameters[name])
    if rng is not None:
        rng.bit_generator.state = stored.random_state
    return stored.progress


def _read(path: Path) -> _Contents:
    """Read a checkpoint, every byte of it."""
    with open(path, "rb") as file:
        # A damaged file fails in whichever layer comes upon it first: zip, npy, UTF-8 or JSON.
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = {
                    name.removesuffix(".npy"): _read_array(archive, name)
                    for name in archive.namelist()
                }
            header = json.loads(str(arrays.pop("header")))
            found = header["format"]
            if found == _FORMAT:
                return _sorted_out(header, arrays)
        except Exception as error:
            raise CheckpointError(
                f"{path} is truncated, damaged or no checkpoint: {error!r}"
            ) from error
    raise CheckpointError(f"{path} must be a {_FORMAT!r}, got {found!r}")


def _read_array(archive: zipfile.ZipFile, name: str) -> Array:
    """Read one array. `numpy.load` takes another where names are alike but for ``.npy``."""
    with archive.open(name) as member:
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _sorted_out(header: dict[str, Any], arrays: dict[str, Array]) -> _Contents:
    """The contents of a checkpoint; raises something if any of them is missing, or one too many."""
    parts: dict[str, dict[str, Array]] = {"parameters": {}, "optimizer": {}}
    for key, array in arrays.items():
        part, _, name = key.partition("/")
        parts[part][name] = array
    progress = Progress(int(header["step"]), int(header["epoch"]), dict(header["settings"]))
    return _Contents(**parts, random_state=dict(header["random_state"] or {}), progress=progress)


def _compare_random_state(
    path: str | os.PathLike[str], state: Mapping[str, Any], bit_generator: Any
) -> None:
    """Refuse a state that the generator does not take."""
    kind = type(bit_generator).__name__
    found = state.get("bit_generator", "no random state")
    if found != kind:
        raise CheckpointError(f"{path} holds {found}, not the state of a {kind}")
    try:
        copy.deepcopy(bit_generator).state = state
    except Exception as error:  # of whatever kind, as in a damaged file
        raise CheckpointError(
            f"{path} holds a random state that {found} does not take: {error!r}"
        ) from error


def _compared_parameters(
    path: str | os.PathLike[str], stored: Mapping[str, Array], parameters: Mapping[str, Any]
) -> dict[str, Array]:
    """Views of parameters; refuses other names, shapes or dtypes, and what is not writeable."""
    views = {}
    for name, value in _mapping("parameters", parameters).items():
        if not (isinstance(value, np.ndarray) and value.flags.writeable):
            raise CheckpointError(
                f"{path} cannot be loaded: parameters[{name!r}] must be a writeable array"
            )
        views[name] = np.asarray(value).view()
    if stored.keys() != views.keys():
        raise CheckpointError(
            f"{path} holds parameters {', '.join(stored)}, expected {', '.join(map(str, views))}"
        )
    for name, array in views.items():
        found = stored[name]
        if (found.shape, found.dtype) != (array.shape, array.dtype):
            raise CheckpointError(
                f"{path} holds {name} as {found.dtype} of shape {found.shape}, "
                f"expected {array.dtype} of shape {array.shape}"
            )
    return views


class Stop:
    """Whether a signal has asked training to stop, and which."""

    signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Let SIGINT and SIGTERM ask for a stop instead of stopping at once.

    Within the context the first of them makes the `Stop` true, so that a training loop can finish
    its step and save. Another one does what it would have done before: Control-C twice stops.
    To be entered in the main thread, as Python allows signal handlers nowhere else.

    Yields
    ------
    Stop
        False until a signal has come; its ``signal`` says which.

    Examples
    --------
    >>> with stop_on_signals() as stop:
    ...     for step in range(100):
    ...         if step == 3:
    ...             signal.raise_signal(signal.SIGTERM)
    ...         if stop:
    ...             break
    >>> step, stop.signal.name
    (3, 'SIGTERM')
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: object) -> None:
        stop.signal = signal.Signals(number)
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()
