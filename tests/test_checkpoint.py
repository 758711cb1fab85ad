"""Checkpoints: what comes back, what is refused, and what a killed process leaves."""

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import set_shape
from numpy.random import default_rng as rng
from numpy.testing import assert_array_equal

import fastrnn
from fastrnn import checkpoint

BIT_GENERATORS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]


def new_training(n_a=5, dtype=np.float32, optimizer=fastrnn.Adam, seed=0):
    parameters = fastrnn.initialize_parameters(3, n_a, 2, seed=seed, dtype=dtype)
    return parameters, optimizer(parameters, learning_rate=0.01)


class Huge(int):
    """An integer that Python does not write out."""

    def __new__(cls):
        return int.__new__(cls, 10**5000)

    def __str__(self):  # so that pytest can
        return "huge"


def train(parameters, optimizer, steps, generator):
    for _ in range(steps):
        x = generator.standard_normal((3, 4, 6)).astype(parameters["Wax"].dtype)
        labels = generator.integers(0, 2, 4)
        a0 = np.zeros((len(parameters["ba"]), 4), x.dtype)
        _, y_pred, caches = fastrnn.rnn_forward(x, a0, parameters, [6, 2, 5, 3])
        _, gradients = fastrnn.output_backward(y_pred, labels, caches)
        optimizer.step(gradients | fastrnn.rnn_backward(gradients["da"], caches))


def assert_same(comp, ref):
    """Of two trainings, parameters and optimizers are the same to the bit."""
    for comp_arrays, ref_arrays in ((comp[0], ref[0]), (comp[1].state_dict(), ref[1].state_dict())):
        assert comp_arrays.keys() == ref_arrays.keys()
        for name, array in ref_arrays.items():
            assert comp_arrays[name].dtype == array.dtype
            assert_array_equal(comp_arrays[name], array, err_msg=name)


@pytest.fixture
def path(tmp_path):
    """A checkpoint after three steps."""
    path = tmp_path / "rnn.npz"
    parameters, optimizer = new_training()
    train(parameters, optimizer, 3, rng(1))
    checkpoint.save(path, parameters, optimizer, step=3, epoch=1, rng=rng(2))
    return path


@pytest.mark.parametrize("optimizer", [fastrnn.Adam, fastrnn.SGD])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ten_steps_and_ten_more_are_twenty(tmp_path, dtype, optimizer):
    ref = new_training(dtype=dtype, optimizer=optimizer)
    train(*ref, 20, rng(1))

    generator = rng(1)
    first = new_training(dtype=dtype, optimizer=optimizer)
    train(*first, 10, generator)
    checkpoint.save(tmp_path / "a", *first, step=10, epoch=0, rng=generator)

    comp, generator = new_training(dtype=dtype, optimizer=optimizer, seed=7), rng(8)
    assert checkpoint.load(tmp_path / "a", *comp, rng=generator).step == 10
    assert_same(comp, first)
    train(*comp, 10, generator)
    assert_same(comp, ref)


@pytest.mark.parametrize("kind", BIT_GENERATORS)
def test_random_state_goes_on(tmp_path, kind):
    ref, comp = (np.random.Generator(getattr(np.random, kind)(seed)) for seed in (1, 2))
    ref.random(3)
    ref.integers(0, 9, dtype=np.uint32)  # leaves half a draw over, which is part of the state
    training = new_training()
    checkpoint.save(tmp_path / "a", *training, step=0, epoch=0, rng=ref)
    checkpoint.load(tmp_path / "a", *training, rng=comp)
    assert_array_equal(comp.integers(0, 2**32, 9, np.uint32), ref.integers(0, 2**32, 9, np.uint32))
    assert_array_equal(comp.standard_normal(9), ref.standard_normal(9))


def test_progress_and_settings_come_back(tmp_path):
    settings = {"batch_size": 4096, "engine": "fastrnn", "rates": [0.5, None]}
    training = new_training()
    # An integer of NumPy is one as well.
    progress = {"step": np.int64(12), "epoch": np.int8(2)}
    checkpoint.save(tmp_path / "a", *training, **progress, settings=settings)
    assert checkpoint.load(tmp_path / "a", *training) == (12, 2, settings)


def test_file_is_read_without_pickle(path):
    with np.load(path, allow_pickle=False) as archive:
        assert json.loads(str(archive["header"]))["step"] == 3
        assert {"parameters/Wax", "optimizer/Wax.mean"} < set(archive.files)


class Stateful:
    """What has some state."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state


def test_numpy_in_settings_comes_back_as_json_has_it(tmp_path):
    training = new_training()
    settings = {"rate": np.float32(0.5), "sizes": (1, np.int64(2)), 3: np.arange(2)}
    checkpoint.save(tmp_path / "a", *training, step=0, epoch=0, settings=settings)
    found = checkpoint.load(tmp_path / "a", *training).settings
    assert found == {"rate": 0.5, "sizes": [1, 2], "3": [0, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 1.5}, r"step must be an integer of 0 or more, below 2\*\*63, got 1.5"),
        ({"epoch": -1}, r"epoch must be an integer of 0 or more, below 2\*\*63, got -1"),
        ({"epoch": None}, r"epoch must be an integer of 0 or more, below 2\*\*63, got None"),
        ({"rng": np.random.RandomState(0)}, "rng must be a numpy.random.Generator, got Random"),
        ({"settings": {"not": {"json"}}}, "settings must be a mapping of what JSON can hold, got"),
        ({"settings": {"module": os}}, "settings must be a mapping of what JSON can hold, got"),
        ({"settings": 3}, "settings must be a mapping of what JSON can hold, got 3"),
        ({"optimizer": None}, "optimizer must have a method state_dict, got None"),
        ({"parameters": [np.ones(2)]}, "parameters must be a mapping of arrays, got list"),
        ({"parameters": {"W": np.array([None])}}, r"parameters\['W'\] must be .* got object"),
        ({"parameters": {"W": [1.0]}}, r"parameters\['W'\] must be an ordinary array, got list"),
        ({"parameters": {"W": np.ma.ones(2)}}, r"must be an ordinary array, got MaskedArray"),
        ({"parameters": {1: np.ones(2)}}, "parameters must have printable names, got 1"),
        ({"parameters": {"a\0b": np.ones(2)}}, r"printable names, got 'a\\x00b'"),
        ({"parameters": {"a" * 1001: np.ones(2)}}, "parameters must have printable names"),
        ({"parameters": {"a\\b": np.ones(2)}}, "parameters must have names without a backslash"),
        ({"optimizer": Stateful([1.0])}, "optimizer must be a mapping of arrays, got list"),
        ({"optimizer": Stateful({1: np.ones(2)})}, "optimizer must have printable names, got 1"),
        ({"optimizer": Stateful({"v": [[1], [1, 2]]})}, r"optimizer\['v'\] must be an ordinary"),
        ({"step": True}, r"step must be an integer of 0 or more, below 2\*\*63, got True"),
        ({"settings": np.arange(2)}, "settings must be a mapping of what JSON can hold"),
        ({"settings": {"n": Huge()}}, "settings must be .* got an object of type dict"),
        ({"step": Huge()}, r"step must be .* below 2\*\*63, got an object of type Huge"),
    ],
)
def test_what_no_checkpoint_can_hold_is_refused_before_anything_is_written(path, change, message):
    before = path.read_bytes()
    parameters, optimizer = new_training()
    arguments = {"parameters": parameters, "optimizer": optimizer, "step": 4, "epoch": 1}
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.save(path, **(arguments | change))
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def test_names_that_are_alike_are_told_apart(tmp_path):
    parameters = {name: np.full(2, i) * 1.0 for i, name in enumerate(("W", "W.npy", "a/W", "ü W"))}
    optimizer = fastrnn.SGD(parameters, learning_rate=0.1)
    checkpoint.save(tmp_path / "a", parameters, optimizer, step=0, epoch=0)
    for array in parameters.values():
        array.fill(9)
    checkpoint.load(tmp_path / "a", parameters, optimizer)
    assert [array.tolist() for array in parameters.values()] == [[i, i] for i in range(4)]
    with pytest.raises(checkpoint.CheckpointError, match="expected 1, 2"):
        checkpoint.load(tmp_path / "a", {1: np.ones(2), 2: np.ones(2)}, optimizer)


def test_load_refuses_what_is_no_generator_and_no_optimizer(path):
    with pytest.raises(checkpoint.CheckpointError, match=r"rng must be a numpy.random.Generator"):
        checkpoint.load(path, *new_training(), rng=3)
    with pytest.raises(checkpoint.CheckpointError, match="parameters must be a mapping of arr"):
        checkpoint.load(path, [np.ones(2)], new_training()[1])
    with pytest.raises(checkpoint.CheckpointError, match="a method load_state_dict, got None"):
        checkpoint.load(path, new_training()[0], None)


def test_save_leaves_one_file_and_the_old_one_if_it_fails(path, monkeypatch):
    before = path.read_bytes()
    assert os.listdir(path.parent) == [path.name]
    training = new_training()

    def full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, *training, step=4, epoch=1)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def assert_refused(path, match, training=None, **keywords):
    """Loading fails with a message, and changes nothing."""
    training = training or new_training()
    before = {name: array.copy() for name, array in training[0].items()}
    state = training[1].state_dict()
    with pytest.raises(checkpoint.CheckpointError, match=match) as caught:
        checkpoint.load(path, *training, **keywords)
    assert str(path) in str(caught.value)
    for name, array in before.items():
        assert_array_equal(training[0][name], array)
    for name, array in training[1].state_dict().items():
        assert_array_equal(array, state[name])


def test_links_that_lead_to_each_other_are_refused_and_stay(tmp_path):
    link = tmp_path / "rnn.npz"
    link.symlink_to(link.name)
    with pytest.raises(OSError, match="symbolic links"):
        checkpoint.save(link, *new_training(), step=7, epoch=0)
    assert link.is_symlink()
    assert os.listdir(tmp_path) == [link.name]


def test_a_link_stays_one(path):
    link = path.with_name("latest.npz")
    link.symlink_to(path.name)
    checkpoint.save(link, *new_training(), step=7, epoch=0)
    assert link.is_symlink()
    assert checkpoint.load(path, *new_training()).step == 7


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    training = new_training()
    for size in {*range(0, len(whole), 61), len(whole) - 1}:
        path.write_bytes(whole[:size])
        assert_refused(path, "truncated, damaged or no checkpoint", training)


def test_damage_is_refused(path):
    whole = path.read_bytes()
    with np.load(path) as archive:
        Wax = archive["parameters/Wax"].tobytes()
    for at in (whole.index(Wax), whole.index(Wax) + len(Wax) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert_refused(path, "damaged")


def test_another_file_is_refused(path):
    path.write_text("not an archive")
    assert_refused(path, "no checkpoint")
    with open(path, "wb") as file:
        np.savez(file, Wax=np.zeros(3))
    assert_refused(path, "no checkpoint")
    with open(path, "wb") as file:
        np.savez(file, header=np.array('{"format": "fastrnn checkpoint 2"}'))
    assert_refused(path, "must be a 'fastrnn checkpoint 1', got 'fastrnn checkpoint 2'")
    with open(path, "wb") as file:
        np.savez(file, header=np.array({"format": "x"}, object))
    assert_refused(path, "no checkpoint")


class Pickled:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_is_not_run(path):
    with np.load(path) as archive:
        contents = dict(archive)
    contents["parameters/Wax"] = np.array(Pickled(path.parent / "ran"), object)
    with open(path, "wb") as file:
        np.savez(file, **contents)
    assert_refused(path, "allow_pickle=False")
    assert not (path.parent / "ran").exists()


def rewrite(path, header=(), **arrays):
    """Write a checkpoint anew with other things in it; None takes one out."""
    with np.load(path) as archive:
        contents = {name: archive[name] for name in archive.files}
    fields = json.loads(str(contents["header"])) | dict(header)
    contents["header"] = np.array(json.dumps({k: v for k, v in fields.items() if v is not None}))
    with open(path, "wb") as file:
        np.savez(file, **contents, **arrays)


@pytest.mark.parametrize("field", ["step", "epoch", "settings", "random_state"])
@pytest.mark.parametrize("value", [None, "x"])
def test_a_header_that_lacks_something_is_refused(path, field, value):
    rewrite(path, {field: value})
    assert_refused(path, "damaged", rng=rng(0))


def test_an_array_of_no_known_part_is_refused(path):
    rewrite(path, **{"gradients/dWax": np.zeros(3)})
    assert_refused(path, "damaged")


def test_a_random_state_that_is_incomplete_is_refused(path):
    generator = rng(0)
    before = generator.bit_generator.state
    rewrite(path, {"random_state": {"bit_generator": "PCG64"}})
    assert_refused(path, "a random state that PCG64 does not take: KeyError", rng=generator)
    assert generator.bit_generator.state == before


@pytest.mark.parametrize("name", ["Wax", "by"])
def test_parameters_that_cannot_be_overwritten_are_refused(path, name):
    parameters, optimizer = new_training()
    parameters[name].flags.writeable = False
    message = rf"parameters\['{name}'\] must be a writeable array"
    assert_refused(path, message, (parameters, optimizer))
    listed = parameters | {name: parameters[name].tolist()}
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.load(path, listed, optimizer)


def test_parameters_that_get_another_shape_meanwhile(path):
    class Reshaping(Recorder):
        def load_state_dict(self, state):
            set_shape(parameters["Wax"], (15,))

    ref, comp = new_training()[0], new_training(seed=1)[0]
    parameters = {name: array.view() for name, array in comp.items()}
    checkpoint.load(path, ref, new_training()[1])
    checkpoint.load(path, parameters, Reshaping())
    for name, array in ref.items():
        assert_array_equal(comp[name], array, err_msg=name)


def test_another_training_is_refused(path):
    assert_refused(path, r"Wax as float32 of shape \(5, 3\), expected.*\(6, 3\)", new_training(6))
    assert_refused(path, "Wax as float32.*expected float64", new_training(dtype=np.float64))
    assert_refused(path, "another optimizer", new_training(optimizer=fastrnn.SGD))
    parameters, optimizer = new_training()
    assert_refused(path, "expected Wax.*, E", (parameters | {"E": np.zeros(2)}, optimizer))
    assert_refused(
        path, "PCG64, not the state of a MT", rng=np.random.Generator(np.random.MT19937())
    )
    training = new_training()
    checkpoint.save(path, *training, step=0, epoch=0)
    assert_refused(path, "no random state", rng=rng(0))


def test_an_optimizer_that_refuses_the_type_is_another(path):
    class Picky:
        def load_state_dict(self, state):
            raise TypeError("mine has no arrays")

    with pytest.raises(checkpoint.CheckpointError, match="is of another optimizer: mine has no"):
        checkpoint.load(path, new_training()[0], Picky())


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
def test_the_file_then_its_name_reach_the_disk(path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(*names):
        done.append("name")
        replace(*names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    checkpoint.save(path, *new_training(), step=0, epoch=0)
    assert done == ["file", "name", "folder"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs the list of open files")
def test_no_file_stays_open(path):
    checkpoint.save(path, *new_training(), step=0, epoch=0)
    checkpoint.load(path, *new_training())
    descriptors = Path("/proc/self/fd").iterdir()
    opened = [os.readlink(each) for each in descriptors if each.is_symlink()]
    assert not [name for name in opened if name.startswith(str(path.parent))]


def test_arrays_of_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)  # as if they were more than 2 GiB
    ref = new_training(n_a=30)
    checkpoint.save(tmp_path / "a", *ref, step=0, epoch=0)
    comp = new_training(n_a=30, seed=1)
    checkpoint.load(tmp_path / "a", *comp)
    assert_same(comp, ref)


def test_no_file_is_no_checkpoint_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none", *new_training())


@pytest.fixture
def interruptible():
    """Python's own handler of SIGINT: a shell lets its background processes ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_once_and_the_next_one_stops(number):
    handlers = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    with checkpoint.stop_on_signals() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert stop.signal == number
        assert signal.getsignal(number) in handlers
    with checkpoint.stop_on_signals():
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with checkpoint.stop_on_signals():
        pass
    with pytest.raises(ArithmeticError), checkpoint.stop_on_signals():
        raise ArithmeticError
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == handlers


# Imports the module alone, then forks a writer for each line of input and prints its process id.
# Writer i writes checkpoints of step 1000 i, 1000 i + 1 and so on until it is killed.
WRITERS = """if True:
    import importlib.util, os, sys
    import numpy as np

    spec = importlib.util.spec_from_file_location("checkpoint", sys.argv[1])
    checkpoint = importlib.util.module_from_spec(spec)
    sys.modules["checkpoint"] = checkpoint
    spec.loader.exec_module(checkpoint)
    assert "fastrnn" not in sys.modules

    class Optimizer:
        def state_dict(self):
            return {"mean": self.mean}

    optimizer = Optimizer()
    for i, line in enumerate(sys.stdin):
        child = os.fork()
        step = 1000 * i
        while child == 0:
            optimizer.mean = np.full((100, 100), step, np.float64)
            parameters = {"W": np.full((100, 100), step, np.float32)}
            checkpoint.save(sys.argv[2], parameters, optimizer, step=step, epoch=i)
            step += 1
        print(child, flush=True)
        os.waitpid(child, 0)
        print("gone", flush=True)
"""


class Recorder:
    """An optimizer that takes over whatever it is given."""

    def load_state_dict(self, state):
        self.state = state


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_hundred_killed_writers_leave_a_checkpoint_that_loads(tmp_path):
    generator = rng(0)
    path = tmp_path / "rnn.npz"
    module = importlib.util.find_spec("fastrnn.checkpoint").origin
    command = [sys.executable, "-c", WRITERS, module, str(path)]
    pipe = subprocess.PIPE
    steps, interrupted = [], 0
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as writers:
        for i in range(100):
            writers.stdin.write("\n")
            child = int(writers.stdout.readline())
            time.sleep(generator.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            assert writers.stdout.readline() == "gone\n"
            interrupted += Path(f"{path}.partial").exists()

            if path.exists():
                parameters, optimizer = {"W": np.empty((100, 100), np.float32)}, Recorder()
                step, epoch, _ = checkpoint.load(path, parameters, optimizer)
                assert epoch == step // 1000 <= i
                assert_array_equal(parameters["W"], step)
                assert_array_equal(optimizer.state["mean"], step)
                steps.append(step)
        writers.stdin.close()
    assert steps == sorted(steps)
    # Many were killed while they wrote, and many had written before: else the test shows nothing.
    assert interrupted > 10
    assert len(set(steps)) > 10
