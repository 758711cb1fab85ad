"""From gradients to better parameters: clipping by the global norm, SGD and Adam.

Parameters and gradients are dicts of arrays as the RNN functions take and return them. The
gradient of the parameter ``Wax`` has the key ``dWax``, and so on. What `output_backward` and
`rnn_backward` return can be merged into one dict and handed over whole: the gradients in it that
belong to no parameter, such as ``da`` and ``dx``, are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _check, _check_training

Array = NDArray[Any]


def clip_gradients(gradients: Mapping[str, Array], max_norm: float) -> float:
    """Scale the gradients of all parameters, in place, so that their norm is at most `max_norm`.

    The norm is that of all of them together, as if they were one vector [1]_.

    Parameters
    ----------
    gradients : dict of ndarray
        Arrays of float32 or float64, of any shape, which count and are scaled. Those of
        ``da``, ``dx``, ``da0``, ``dxt`` and ``da_prev`` are left alone: they belong to samples and
        to no parameter. So let an initial state that is trained have another name than ``a0``.
    max_norm : float
        Above 0. With ``inf`` nothing is scaled, only measured.

    Returns
    -------
    float
        The norm before scaling, summed up in float64. Nothing is scaled if it is NaN or inf, as
        it is where a gradient holds NaN or inf.

    Raises
    ------
    ValueError
        If `max_norm` is not above 0, or an array to be scaled is read-only.
    TypeError
        If an array to be scaled is not one of float32 or float64, or `max_norm` not a number.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural
       networks", ICML 2013, algorithm 1.

    Examples
    --------
    >>> gradients = {"dWax": np.array([[3.0]]), "dba": np.array([[4.0]]), "da0": np.array([[5.0]])}
    >>> clip_gradients(gradients, max_norm=1.0)
    5.0
    >>> {key: round(array.item(), 6) for key, array in gradients.items()}
    {'dWax': 0.6, 'dba': 0.8, 'da0': 5.0}
    """
    limit = _check_training.norm_limit("max_norm", max_norm)
    chosen = _check_training.gradients_to_update(gradients)
    # One that stands under two names is scaled once.
    places = {(it.__array_interface__["data"], it.shape, it.strides): it for it in chosen.values()}
    arrays = list(places.values())

    with np.errstate(all="ignore"):
        norm = _global_norm(arrays)
        if limit < norm < math.inf:
            for array in arrays:
                # In float64: the scale may be too small for float32 where the result is not.
                np.multiply(array, limit / norm, out=array, dtype=np.float64, casting="same_kind")
    return norm


def _global_norm(arrays: Iterable[Array]) -> float:
    """Euclidean norm of all elements of all arrays, of whatever magnitude they are."""
    total = sum(map(_sum_of_squares, arrays))
    # The square of a float32 always has room in float64; that of a float64 may have none.
    if np.finfo(np.float64).tiny <= total < math.inf:
        return math.sqrt(total)
    largest = float(np.max([np.abs(array).max(initial=0) for array in arrays], initial=0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    scaled = (np.divide(array, largest, dtype=np.float64) for array in arrays)
    return largest * math.sqrt(sum(map(_sum_of_squares, scaled)))


def _sum_of_squares(array: Array) -> float:
    elements = array.ravel(order="K")
    # einsum converts piece by piece: no copy of the whole array in float64 is made.
    return float(np.einsum("i,i", elements, elements, dtype=np.float64))


class _Optimizer:
    """What SGD and Adam share: which gradient belongs to which parameter, and the state.

    A subclass names its hyper-parameters, which are attributes, with the check of each, and says
    what it remembers of a parameter and how it updates one.
    """

    _hyper_parameters: ClassVar[dict[str, Callable[[str, Any], float]]]

    def __init__(self, parameters: Mapping[str, Array]) -> None:
        self._check_hyper_parameters(vars(self))
        arrays = _check_training.named_arrays("parameters", parameters)
        # The dict and not its arrays: one that the caller puts there later is to be trained too.
        self._parameters = parameters
        self._layout = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        self._memory = {name: self._remember(array) for name, array in arrays.items()}

    def step(self, gradients: Mapping[str, ArrayLike]) -> None:
        """Update the parameters in place, each by its gradient.

        Parameters
        ----------
        gradients : mapping of array_like
            ``dWax`` for the parameter ``Wax``, and so on, of the parameter's shape; converted to
            its dtype. A parameter without a gradient is left alone. The keys ``da``, ``dx``,
            ``da0``, ``dxt`` and ``da_prev`` are ignored, unless there is a parameter ``a0`` or so.

        Raises
        ------
        ValueError
            If any other key belongs to no parameter, or a gradient's shape is not the parameter's.
            If a hyper-parameter was set out of its range, or a parameter was taken away, made
            read-only or replaced by one of another shape or dtype.
        TypeError
            If a gradient is not an array of real numbers, or a key no string.

        Notes
        -----
        After an error the parameters and the optimizer are as before. NaN and inf in a gradient
        are no error: they go where they belong. What the handler of a signal raises, as
        KeyboardInterrupt, may come half-way: `fastrnn.checkpoint.stop_on_signals` waits for a step.
        """
        self._check_hyper_parameters(vars(self))
        parameters = _check_training.parameters_like(self._parameters, self._layout)
        pairs = _check_training.gradients_by_parameter(gradients, parameters)
        # Neither may this stop half-way: memory is allocated before, and an overflow is no error
        # where warnings are.
        work = {name: np.empty_like(parameters[name]) for name in pairs}
        with np.errstate(all="ignore"):
            for name, gradient in pairs.items():
                self._update(parameters[name], gradient, self._memory[name], work[name])

    def state_dict(self) -> dict[str, Array]:
        """Copy all that another optimizer needs to go on from here as this one would.

        Returns
        -------
        dict of ndarray
            The hyper-parameters by name, and of a parameter ``Wax`` what is remembered of it, as
            ``Wax.`` and a name. `numpy.savez` stores it and what `numpy.load` reads can be loaded.
            The parameters themselves are not in it.
        """
        state = {name: np.array(getattr(self, name), float) for name in self._hyper_parameters}
        return state | {key: array.copy() for key, array in self._remembered().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Go on from a state that `state_dict` returned, of an optimizer of the same parameters.

        Parameters
        ----------
        state : mapping of array_like
            Its arrays are copied. The hyper-parameters are taken over as well.

        Raises
        ------
        ValueError
            If a key is missing or unknown, a shape is wrong, or a number out of range.
        TypeError
            If a dtype is wrong. After either error the optimizer is as before.
        """
        arrays = _check_training.state_arrays(state, self.state_dict())
        hyper_parameters = self._check_hyper_parameters(arrays)
        for name, number in hyper_parameters.items():
            setattr(self, name, number)
        for key, array in self._remembered().items():
            np.copyto(array, arrays[key])

    def _remembered(self) -> dict[str, Array]:
        return {
            f"{name}.{key}": array
            for name, memory in self._memory.items()
            for key, array in memory.items()
        }

    @classmethod
    def _check_hyper_parameters(cls, values: Mapping[str, Any]) -> dict[str, float]:
        return {name: check(name, values[name]) for name, check in cls._hyper_parameters.items()}

    @staticmethod
    def _remember(parameter: Array) -> dict[str, Array]:
        """Return what there is to know of a parameter before the first step."""
        raise NotImplementedError

    def _update(
        self, parameter: Array, gradient: Array, memory: dict[str, Array], work: Array
    ) -> None:
        """Change a parameter, and what is remembered of it, in place; allocate nothing.

        `work` is an array like the parameter, for anything.
        """
        raise NotImplementedError


class SGD(_Optimizer):
    """Gradient descent, with or without momentum.

    A step makes ``velocity = momentum * velocity + gradient``, which is 0 at first, and
    ``parameter -= learning_rate * velocity`` [1]_.

    Parameters
    ----------
    parameters : dict of ndarray
        float32 or float64 arrays, of any names and shapes, which `step` updates in place. An array
        put into the dict in place of another is the one that is updated from then on; one of a new
        name is not.
    learning_rate : float
        0 or more. An attribute that may be set between steps, as may `momentum`.
    momentum : float, default 0.0
        In [0, 1).

    Raises
    ------
    ValueError
        If a number is out of its range, or a parameter is read-only.
    TypeError
        If a parameter is not an array of float32 or float64.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization
       and momentum in deep learning", ICML 2013, equations 1 and 2; here the learning rate stands
       outside of the velocity, so that a change of it takes effect at once.

    Examples
    --------
    >>> parameters = {"ba": np.array([[1.0]])}
    >>> optimizer = SGD(parameters, learning_rate=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.step({"dba": np.array([[1.0]])})
    >>> parameters["ba"]
    array([[0.75]])
    """

    _hyper_parameters: ClassVar = {
        "learning_rate": _check_training.non_negative_number,
        "momentum": _check_training.decay_rate,
    }

    def __init__(
        self, parameters: Mapping[str, Array], learning_rate: float, momentum: float = 0.0
    ) -> None:
        self.learning_rate = learning_rate
        self.momentum = momentum
        super().__init__(parameters)

    @staticmethod
    def _remember(parameter: Array) -> dict[str, Array]:
        return {"velocity": np.zeros_like(parameter)}

    def _update(
        self, parameter: Array, gradient: Array, memory: dict[str, Array], work: Array
    ) -> None:
        velocity = memory["velocity"]
        if self.momentum:
            velocity *= float(self.momentum)
            velocity += gradient
        else:
            np.copyto(velocity, gradient)  # 0 times what is not finite would not be 0
        np.multiply(velocity, float(self.learning_rate), out=work)
        parameter -= work


class Adam(_Optimizer):
    """Gradient descent by the mean of past gradients over the root of their mean square.

    A step makes, from ``mean`` and ``mean_square`` that are 0 at first [1]_::

        mean = beta1 * mean + (1 - beta1) * gradient
        mean_square = beta2 * mean_square + (1 - beta2) * gradient**2
        parameter -= learning_rate * (mean / (1 - beta1**t)) / (
            sqrt(mean_square / (1 - beta2**t)) + epsilon
        )

    where ``t`` counts the steps in which that parameter had a gradient, this one included. Where
    the square of a gradient leaves the range of the dtype, as above 1.8e19 in float32, the mean
    square is infinite for good, and that element is not trained any more: clip such gradients.

    Parameters
    ----------
    parameters : dict of ndarray
        float32 or float64 arrays, of any names and shapes, which `step` updates in place. An array
        put into the dict in place of another is the one that is updated from then on; one of a new
        name is not.
    learning_rate : float, default 0.001
        0 or more. An attribute that may be set between steps, as may the others.
    beta1, beta2 : float, default 0.9 and 0.999
        In [0, 1): how much of either mean a step keeps.
    epsilon : float, default 1e-8
        Above 0.

    Raises
    ------
    ValueError
        If a number is out of its range, or a parameter is read-only.
    TypeError
        If a parameter is not an array of float32 or float64.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015,
       algorithm 1.

    Examples
    --------
    >>> parameters = {"ba": np.array([[1.0]])}
    >>> optimizer = Adam(parameters, learning_rate=0.1)
    >>> optimizer.step({"dba": np.array([[20.0]])})
    >>> round(parameters["ba"].item(), 6)
    0.9
    """

    _hyper_parameters: ClassVar = {
        "learning_rate": _check_training.non_negative_number,
        "beta1": _check_training.decay_rate,
        "beta2": _check_training.decay_rate,
        "epsilon": _check.positive_number,
    }

    def __init__(
        self,
        parameters: Mapping[str, Array],
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        super().__init__(parameters)

    @staticmethod
    def _remember(parameter: Array) -> dict[str, Array]:
        return {
            "mean": np.zeros_like(parameter),
            "mean_square": np.zeros_like(parameter),
            "steps": np.zeros((), np.int64),
        }

    def _update(
        self, parameter: Array, gradient: Array, memory: dict[str, Array], work: Array
    ) -> None:
        mean, mean_square = memory["mean"], memory["mean_square"]
        beta1, beta2 = float(self.beta1), float(self.beta2)
        memory["steps"] += 1
        steps = int(memory["steps"])
        unbiased = 1 - beta1**steps
        unbiased_root = math.sqrt(1 - beta2**steps)

        np.multiply(gradient, 1 - beta1, out=work)
        mean *= beta1
        mean += work

        np.multiply(gradient, gradient, out=work)
        work *= 1 - beta2
        mean_square *= beta2
        mean_square += work

        # The scalars 1 - beta**t go into epsilon and the learning rate, which saves two passes.
        np.sqrt(mean_square, out=work)
        work += float(self.epsilon) * unbiased_root
        np.divide(mean, work, out=work)
        work *= float(self.learning_rate) * unbiased_root / unbiased
        parameter -= work
