"""One implementation for `peers.py`, in a process of its own that answers commands on stdin.

``python -m benchmarks._peers_worker NAME DTYPE`` says ``hello`` and a version (or ``missing`` and
a reason), then answers each line with one line, or with ``error`` and a reason:

- ``load n_x n_a n_y m T full``: make the data; ``ready`` and the number of real steps of samples
- ``check``: ``values`` and for each result its name, a product, and the scale of an error
- ``time forward|both seconds``: ``ms`` and the median time of one call
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks._peers_data import Array, Problem, fingerprint, make_problem

PEAK_FLOPS = 5e9


class Implementation:
    """`forward` and `both` are what is timed; `results` runs each once and names what came out.

    The states and predictions are those of `forward`, the gradients those of `both`: so all that
    is timed is compared, and has been compiled.

    Names: ``a``, ``y``, ``dx`` (in the order (T, m, n)), ``da0`` (m, n_a), ``dWax``, ``dWaa`` and
    ``dba`` (n_a,). What an implementation does not compute it leaves out.
    """

    version = ""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def forward(self) -> Any:
        """Run all steps, output layer included where the library has one."""
        raise NotImplementedError

    def both(self) -> Any:
        """Run all steps forward, then back from `cotangent`."""
        raise NotImplementedError("has no backward pass")

    def results(self) -> dict[str, Array]:
        """Compute everything once."""
        raise NotImplementedError


class FastRNN(Implementation):
    """fastrnn, called with Fortran-ordered arrays as `pad_sequences` makes them."""

    module = "fastrnn"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.rnn = importlib.import_module(self.module)
        self.x, self.a0, self.da = problem.x.T, problem.a0.T, problem.cotangent.T
        self.parameters = problem.parameters

    def forward(self) -> Any:
        return self.rnn.rnn_forward(self.x, self.a0, self.parameters, self.problem.lengths)

    def both(self) -> Any:
        a, y, caches = self.forward()
        return a, y, self.rnn.rnn_backward(self.da, caches)

    def results(self) -> dict[str, Array]:
        a, y, _ = self.forward()
        gradients = self.both()[2]
        return {
            "a": a.T,
            "y": y.T,
            **{name: gradients[name] for name in ("dWax", "dWaa")},
            "dx": gradients["dx"].T,
            "da0": gradients["da0"].T,
            "dba": gradients["dba"][:, 0],
        }


class Reference(FastRNN):
    """The notebook repaired, in NumPy."""

    module = "fastrnn.reference"


class TorchPadded(Implementation):
    """`torch.nn.RNN` over all steps; the output layer is left out of the graph of gradients."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import torch

        self.torch = torch
        self.x, self.cotangent = map(torch.from_numpy, (problem.x, problem.cotangent))
        self.a0 = torch.from_numpy(problem.a0)[None]
        self.Wya, self.by = map(torch.from_numpy, (problem.Wya, problem.by))
        self.lengths = torch.from_numpy(problem.lengths)
        n_a, n_x = problem.Wax.shape
        self.rnn = torch.nn.RNN(n_x, n_a, dtype=self.x.dtype)
        weights = (problem.Wax, problem.Waa, problem.ba, np.zeros_like(problem.ba))
        with torch.no_grad():
            for parameter, value in zip(self.rnn.parameters(), weights, strict=True):
                parameter.copy_(torch.from_numpy(value))

    def states(self, x: Any, a0: Any) -> Any:
        return self.rnn(x, a0)[0]

    def output(self, a: Any) -> Any:
        return self.torch.softmax(self.torch.nn.functional.linear(a, self.Wya, self.by), -1)

    def forward(self) -> Any:
        with self.torch.inference_mode():
            a = self.states(self.x, self.a0)
            return a, self.output(a)

    def both(self) -> Any:
        x, a0 = (array.detach().requires_grad_() for array in (self.x, self.a0))
        a = self.states(x, a0)
        with self.torch.no_grad():
            y = self.output(a)
        inputs = [x, a0, *self.rnn.parameters()]
        return a, y, self.torch.autograd.grad(a, inputs, self.cotangent)

    def results(self) -> dict[str, Array]:
        a, y = self.forward()
        dx, da0, dWax, dWaa, dba, _ = self.both()[2]
        names = {"a": a, "y": y, "dx": dx, "da0": da0[0]}
        names |= {"dWax": dWax, "dWaa": dWaa, "dba": dba}
        return {name: value.numpy() for name, value in names.items()}


class TorchPacked(TorchPadded):
    """`torch.nn.RNN` over the real steps; packing and padding again are part of the time."""

    def states(self, x: Any, a0: Any) -> Any:
        utils = self.torch.nn.utils.rnn
        packed = utils.pack_padded_sequence(x, self.lengths, enforce_sorted=False)
        a, _ = self.rnn(packed, a0)
        return utils.pad_packed_sequence(a, total_length=len(x))[0]


class Jax(Implementation):
    """`jit` of a `lax.scan` that masks; the inputs' product for all steps is taken before it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import jax
        from jax import lax
        from jax import numpy as jnp

        jax.config.update("jax_enable_x64", problem.x.dtype == np.float64)
        self.jax = jax
        lengths, Wya, by = problem.lengths, jnp.asarray(problem.Wya), jnp.asarray(problem.by)
        active = jnp.asarray(np.arange(len(problem.x))[:, None, None] < lengths[:, None])
        cotangent = jnp.asarray(problem.cotangent)

        def states(active: Any, x: Any, a0: Any, Wax: Any, Waa: Any, ba: Any) -> Any:
            def step(a_prev: Any, inputs: Any) -> Any:
                z, active_now = inputs
                a = jnp.where(active_now, jnp.tanh(z + a_prev @ Waa.T), a_prev)
                return a, jnp.where(active_now, a, 0)

            return lax.scan(step, a0, (x @ Wax.T + ba, active))[1]

        def output(a: Any, Wya: Any, by: Any) -> Any:
            return jax.nn.softmax(a @ Wya.T + by)

        def forward(inputs: Any, active: Any, Wya: Any, by: Any) -> Any:
            a = states(active, *inputs)
            return a, output(a, Wya, by)

        def both(inputs: Any, active: Any, Wya: Any, by: Any, cotangent: Any) -> Any:
            a, pull_back = jax.vjp(lambda *inputs: states(active, *inputs), *inputs)
            return a, output(a, Wya, by), pull_back(cotangent)

        arrays = (problem.x, problem.a0, problem.Wax, problem.Waa, problem.ba)
        self.arguments = (tuple(map(jnp.asarray, arrays)), active, Wya, by)
        self.cotangent = cotangent
        self.jit_forward, self.jit_both = jax.jit(forward), jax.jit(both)

    def forward(self) -> Any:
        return self.jax.block_until_ready(self.jit_forward(*self.arguments))

    def both(self) -> Any:
        return self.jax.block_until_ready(self.jit_both(*self.arguments, self.cotangent))

    def results(self) -> dict[str, Array]:
        a, y = self.forward()
        gradients = self.both()[2]
        names = ("a", "y", "dx", "da0", "dWax", "dWaa", "dba")
        return dict(zip(names, map(np.asarray, (a, y, *gradients)), strict=True))


class OnnxRuntime(Implementation):
    """The ONNX operator RNN with `sequence_lens`; no output layer and no backward pass."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        import onnx
        import onnxruntime

        element = onnx.helper.np_dtype_to_tensor_dtype(problem.x.dtype)
        weights = {
            "W": problem.Wax[None],
            "R": problem.Waa[None],
            "B": np.concatenate([problem.ba, np.zeros_like(problem.ba)])[None],
        }
        self.inputs = {
            "X": problem.x,
            "lengths": problem.lengths.astype(np.int32),
            "a0": problem.a0[None],
        }
        value_info, kinds = onnx.helper.make_tensor_value_info, (element, onnx.TensorProto.INT32)
        node = onnx.helper.make_node(
            "RNN", ["X", "W", "R", "B", "lengths", "a0"], ["Y"], hidden_size=len(problem.Wax)
        )
        graph = onnx.helper.make_graph(
            [node],
            "rnn",
            [value_info(k, kinds[k == "lengths"], v.shape) for k, v in self.inputs.items()],
            [value_info("Y", element, None)],
            [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        opset = [onnx.helper.make_opsetid("", 14)]
        model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def forward(self) -> Any:
        return self.session.run(None, self.inputs)[0]

    def results(self) -> dict[str, Array]:
        return {"a": self.forward()[:, 0]}


class Peak(Implementation):
    """`PEAK_FLOPS` of multiply-adds on registers alone, one chain set for each thread."""

    CHAINS = 12

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.threads = int(os.environ["OMP_NUM_THREADS"])
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []

        def pin() -> None:
            if cpus:  # else a scheduler may leave two threads on one core for half a second
                os.sched_setaffinity(0, [cpus.pop()])

        self.pool = ThreadPoolExecutor(self.threads, initializer=pin)
        self.chains, lanes = compile_chains(problem.x.dtype, self.CHAINS)
        self.turns = round(PEAK_FLOPS / (2 * self.CHAINS * lanes * self.threads))
        self.number = problem.x.dtype.type(0.5)
        self.forward()

    def forward(self) -> Any:
        return list(self.pool.map(self.chains, [self.turns] * self.threads, [self.number] * 64))

    def results(self) -> dict[str, Array]:
        return {}


def compile_chains(dtype: np.dtype[Any], chains: int) -> tuple[Callable[..., Any], int]:
    """Compile independent chains ``sum = sum * number + number`` of vectors, and give the lanes.

    Twelve chains cover the latency of two multiply-add units (4 cycles each) and fit the 16
    registers of AVX2.
    """
    import numba
    from llvmlite import ir
    from numba.core import cgutils
    from numba.extending import intrinsic

    from fastrnn.kernels.tile import TILE

    lanes = TILE.vector_bytes // dtype.itemsize

    @intrinsic
    def run(typingctx: Any, turns: Any, number: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            turns, number = arguments
            vector = ir.VectorType(number.type, lanes)
            name = f"llvm.fmuladd.v{lanes}f{8 * dtype.itemsize}"
            kind = ir.FunctionType(vector, [vector] * 3)
            fma = cgutils.insert_pure_function(builder.module, kind, name)
            factor = ir.Constant(vector, ir.Undefined)
            for lane in range(lanes):
                factor = builder.insert_element(factor, number, ir.Constant(ir.IntType(32), lane))
            sums = [cgutils.alloca_once(builder, vector) for _ in range(chains)]
            for i, place in enumerate(sums):
                builder.store(ir.Constant(vector, [i / chains] * lanes), place)
            with cgutils.for_range(builder, turns):
                for place in sums:
                    builder.store(builder.call(fma, [builder.load(place), factor, factor]), place)
            total = builder.load(sums[0])
            for place in sums[1:]:
                total = builder.fadd(total, builder.load(place))
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return number(turns, number), codegen

    return numba.njit(nogil=True)(lambda turns, number: run(turns, number)), lanes


#: Name on the command line: the class, and the module whose version is reported.
IMPLEMENTATIONS = {
    "fastrnn": (FastRNN, "fastrnn"),
    "reference": (Reference, "numpy"),
    "torch-packed": (TorchPacked, "torch"),
    "torch-padded": (TorchPadded, "torch"),
    "jax": (Jax, "jax"),
    "onnxruntime": (OnnxRuntime, "onnxruntime"),
    "peak": (Peak, "numba"),
}


def median_time(call: Callable[[], Any], seconds: float) -> float:
    """Milliseconds of one call: the median of as many as fit in `seconds`, and three at least.

    As long before that, calls are not counted: threads that slept find their cores again, caches
    and clocks settle. A first call over a quarter of a second stands for itself.
    """

    def milliseconds() -> float:
        start = time.perf_counter()
        result = call()
        elapsed = 1e3 * (time.perf_counter() - start)
        del result  # freeing belongs to the caller, not to the call
        return elapsed

    warm = first = milliseconds()
    if first > 250:
        return first
    while warm < 1e3 * seconds:
        warm += milliseconds()
    times: list[float] = []
    while len(times) < 3 or sum(times) < 1e3 * seconds:
        times.append(milliseconds())
    return float(np.median(times))


class Worker:
    """The implementation on the data loaded last."""

    def __init__(self, name: str, dtype: str) -> None:
        self.kind, module = IMPLEMENTATIONS[name]
        self.dtype = np.dtype(dtype)
        self.version = f"{module} {importlib.import_module(module).__version__}"
        self.on: Any = None

    def answer(self, command: str, *words: str) -> str:
        """Do one command."""
        if command == "load":
            self.on = None  # frees the data before the next are made
            *shape, full = map(int, words)
            n_x, n_a, n_y, m, T = shape
            problem = make_problem(n_x, n_a, n_y, m, T, bool(full), self.dtype)
            self.on = self.kind(problem)
            return f"ready {PEAK_FLOPS if self.kind is Peak else problem.lengths.sum()}"
        if command == "check":
            return " ".join(["values", *fingerprint(self.on.problem, self.on.results())])
        what, seconds = words
        return f"ms {median_time(getattr(self.on, what), float(seconds))}"


def main() -> None:
    """Answer until stdin ends. What a library prints goes to stderr, not between the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(line: str) -> None:
        print(" ".join(line.split()), file=answers, flush=True)

    try:
        worker = Worker(*sys.argv[1:])
    except Exception as error:  # whatever keeps a library from loading, it is then missing
        say(f"missing {error}")
        return
    say(f"hello {worker.version}")
    for line in sys.stdin:
        try:
            say(worker.answer(*line.split()))
        except Exception as error:  # an unsupported dtype, no memory: the parent shows a blank
            say(f"error {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
