"""The words example, on made-up words that need no extras."""

import argparse
import importlib
import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal
from thread_ranks import on_ranks

import fastrnn
import fastrnn.reference
from fastrnn import checkpoint
from fastrnn.distributed import Ranks

EXAMPLES = str(Path(__file__).parents[1] / "examples")
pytest.importorskip("tqdm", reason="the extra `examples`")


@pytest.fixture(scope="module")
def words():
    sys.path.insert(0, EXAMPLES)
    try:
        yield importlib.import_module("words")
    finally:
        sys.path.remove(EXAMPLES)


@pytest.fixture
def made_up(words):
    """Words of three languages, which differ in their letters."""
    generator, data = rng(0), words.data
    languages = generator.integers(0, 3, 300)
    spelled = [
        "".join(generator.choice(list(("abc", "bcd", "xya")[language]), generator.integers(2, 7)))
        for language in languages
    ]
    return data.Words(*data.encode(spelled, "abcdxy"), languages)


def settings_of(words, *arguments):
    return words.parse(["--batch-size=32", "--hidden=12", "--embedding=4", *map(str, arguments)])


def training_of(words, made_up, *arguments, ranks=None):
    return words.Training(made_up, 7, settings_of(words, *arguments), ranks or Ranks())


def assert_same(comp, ref):
    for name in ref.parameters:
        assert_array_equal(comp.parameters[name], ref.parameters[name], err_msg=name)


@pytest.mark.parametrize("engine", ["fastrnn", "reference"])
def test_learns(words, made_up, engine):
    training = training_of(
        words, made_up, "--epochs=20", "--learning-rate=0.03", f"--engine={engine}"
    )
    outcome = training.run(made_up)
    assert outcome.steps == 20 * 10
    assert outcome.words_per_second > 0
    accuracy = words.accuracy_of(
        words.confusion_matrix(training.engine, made_up, training.parameters)
    )
    assert accuracy > 0.8


def test_engines_train_alike(words, made_up):
    comp, ref = (
        training_of(words, made_up, "--dtype=float64", "--max-steps=12", f"--engine={engine}")
        for engine in ("fastrnn", "reference")
    )
    comp.run(made_up)
    ref.run(made_up)
    for name in ref.parameters:
        assert_allclose(comp.parameters[name], ref.parameters[name], rtol=0, atol=1e-8)


def test_ten_steps_and_a_resumption_are_twenty(words, made_up, tmp_path):
    ref = training_of(words, made_up, "--max-steps=24")
    ref.run(made_up)
    # Stops within the second epoch of ten steps.
    arguments = ["--checkpoint", tmp_path / "a.npz"]
    training_of(words, made_up, "--max-steps=13", *arguments).run(made_up)
    comp = training_of(words, made_up, "--max-steps=24", "--resume", *arguments)
    comp.resume()
    assert comp.step == 13
    comp.run(made_up)
    assert_same(comp, ref)


def test_a_signal_saves_what_can_be_resumed(words, made_up, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    stopped = training_of(words, made_up, "--checkpoint", path)
    take_step = stopped.take_step

    def interrupted(batch, stop):
        if stopped.step == 4:
            signal.raise_signal(signal.SIGTERM)
        return take_step(batch, stop)

    monkeypatch.setattr(stopped, "take_step", interrupted)
    assert stopped.run(made_up).steps == 5
    comp = training_of(words, made_up, "--checkpoint", path, "--resume")
    comp.resume()
    assert comp.step == stopped.step
    assert_same(comp, stopped)


def test_another_training_is_not_resumed(words, made_up, tmp_path):
    path = tmp_path / "a.npz"
    training_of(words, made_up, "--max-steps=1", "--checkpoint", path).run(made_up)
    other = training_of(words, made_up, "--seed=1", "--checkpoint", path, "--resume")
    with pytest.raises(checkpoint.CheckpointError, match="trained with --seed 0"):
        other.resume()


@pytest.mark.parametrize("size", [2, 3])
def test_resumes_on_another_number_of_ranks(words, made_up, tmp_path, size):
    arguments = ["--dtype=float64", "--checkpoint", tmp_path / "a.npz"]
    ref = training_of(words, made_up, "--dtype=float64", "--max-steps=17")
    ref.run(made_up)
    training_of(words, made_up, "--max-steps=12", *arguments).run(made_up)

    def resume(ranks):
        training = training_of(words, made_up, *arguments, "--resume", ranks=ranks)
        training.resume()
        assert training.step == 12
        for batch in training.batches(17):
            training.take_step(batch, checkpoint.Stop())
        return training

    for comp in on_ranks(size, resume):
        assert comp.step == 17
        for name, array in ref.parameters.items():
            assert_allclose(comp.parameters[name], array, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_same_batches(words, made_up, size):
    def batches(rank):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        return list(training_of(words, made_up, ranks=ranks).batches(10**9))

    ref = list(training_of(words, made_up).batches(10**9))
    for step, parts in enumerate(zip(*map(batches, range(size)), strict=True)):
        for rank, part in enumerate(parts):
            T = part.letters.shape[1]
            assert_array_equal(part.lengths, ref[step].lengths[rank::size])
            assert_array_equal(part.letters, ref[step].letters[rank::size, :T])


def test_parts_add_up_to_the_batch(words, made_up, monkeypatch):
    parameters = training_of(words, made_up, "--dtype=float64").parameters
    ref_loss, ref = words.loss_and_gradients(fastrnn.reference, made_up, parameters)
    monkeypatch.setattr(words, "PART", 47)
    comp_loss, comp = words.loss_and_gradients(fastrnn, made_up, parameters)
    assert_allclose(comp_loss, ref_loss, rtol=1e-12)
    assert comp.keys() == ref.keys() == {f"d{name}" for name in parameters}
    for name in ref:
        assert_allclose(comp[name], ref[name], rtol=0, atol=1e-10, err_msg=name)


def test_every_word_is_seen_once_an_epoch(words, made_up):
    seen = [batch.lengths for batch in training_of(words, made_up).batches(10**9)]
    assert_array_equal(np.sort(np.concatenate(seen)), np.sort(made_up.lengths))


def test_rate_warms_up_and_falls(words):
    settings = settings_of(words, "--batch-size=1024", "--learning-rate=0.001", "--scaling=linear")
    rates = [words.rate_at(step, 100, settings) for step in range(100)]
    assert_allclose(max(rates), 0.004)
    assert np.argmax(rates) in (4, 5)
    assert 0 < rates[-1] < rates[50] < rates[20]
    assert_allclose(np.diff(rates[:5]), 0.0008)


def test_prefetching_passes_items_and_errors_on(words):
    def items():
        yield 1
        yield 2
        raise LookupError("in the thread")

    with words.data.Prefetched(items()) as prefetched:
        got = iter(prefetched)
        assert [next(got), next(got)] == [1, 2]
        with pytest.raises(LookupError, match="in the thread"):
            next(got)
    with words.data.Prefetched(iter(int, 1)) as endless:
        assert next(iter(endless)) == 0
    assert not endless._thread.is_alive()


def test_split_and_encoding(words):
    data = words.data
    some = {f"w{chr(97 + i % 26)}{chr(97 + i // 26)}": "en" for i in range(400)}
    parts = data.split(some)
    assert {name: len(part) for name, part in parts.items()} == {
        "validation": 20,
        "test": 20,
        "train": 360,
    }
    assert sorted(word for part in parts.values() for word in part) == sorted(some)
    assert parts == data.split(dict(reversed(some.items())))
    letters, lengths = data.encode(["ba", "aé"], "ab")
    assert_array_equal(letters[:, :3], [[2, 1, 0], [1, data.UNKNOWN, 0]])
    assert_array_equal(lengths, 2)
    assert data.is_latin("señor")
    assert not data.is_latin("don't")
    assert not data.is_latin("мир")


def test_report_writes_json(words, made_up, tmp_path, capsys):
    path = tmp_path / "a.json"
    training = training_of(words, made_up, "--max-steps=3", "--json", path)
    words.report(training, training.run(made_up), {"validation": made_up})
    found = json.loads(path.read_text())
    assert found["steps"] == 3
    assert 0 <= found["accuracy"] <= 1
    assert found["loss"] > 0
    assert found["words_per_second"] > 0
    assert 0 <= found["input_share"] < 1
    assert {"batch_size", "engine"} < set(found)
    assert "words/s" in capsys.readouterr().out

    # With nothing left to do, what there is to tell is told all the same.
    words.report(training, training.run(made_up), {"validation": made_up})
    found = json.loads(path.read_text())
    assert found["loss"] is None
    assert found["words_per_second"] is None
    assert "validation accuracy" in capsys.readouterr().out


def test_command_line(words):
    assert isinstance(words.parse([]), argparse.Namespace)
    with pytest.raises(SystemExit):
        words.parse(["--resume"])
    with pytest.raises(SystemExit):
        words.parse(["--hidden", "0"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-steps=0"], "--max-steps must be at least 1"),
        (["--checkpoint=none/a.npz"], "there is no folder none for a.npz"),
        (["--plot=none/a.png"], "there is no folder none for a.png"),
        (["--resume", "--checkpoint=none.npz"], "there is no none.npz to go on from"),
    ],
)
def test_what_cannot_be_is_said_before_training(words, arguments, message, capsys):
    with pytest.raises(SystemExit):
        words.parse(arguments)
    assert message in capsys.readouterr().err
