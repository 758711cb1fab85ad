"""The functions of the examples, on data small enough to be quick and in need of no extras."""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng as rng
from numpy.testing import assert_allclose, assert_array_equal

import fastrnn
import fastrnn.reference

EXAMPLES = Path(__file__).parents[1] / "examples"
ENGINES = [fastrnn, fastrnn.reference]
engines = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.__name__)


@pytest.fixture(scope="module")
def vowels():
    spec = importlib.util.spec_from_file_location("vowels", EXAMPLES / "vowels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def utterances():
    """Four utterances of each of nine speakers, who differ in the mean of every channel."""
    generator = rng(0)
    speakers = np.repeat(np.arange(9), 4)
    voices = generator.standard_normal((9, 12))
    sequences = [
        (voice[:, np.newaxis] + 0.3 * generator.standard_normal((12, steps))).astype(np.float32)
        for voice, steps in zip(voices[speakers], generator.integers(2, 6, 36), strict=True)
    ]
    return sequences, speakers


def settings_of(vowels, *arguments):
    return vowels.parse(["--hidden", "16", "--batch-size", "10", *arguments])


def silent(epochs, **_):
    return epochs


@engines
def test_vowels_learns(vowels, utterances, engine):
    settings = settings_of(vowels, "--epochs", "15", "--learning-rate", "0.02")
    parameters, losses = vowels.train(engine, *utterances, settings, silent)
    sequences, speakers = utterances
    assert len(losses) == 15
    assert losses[-1] < losses[0] / 3
    assert np.mean(vowels.classify(engine, sequences, parameters) == speakers) > 0.9


def test_vowels_trains_alike_with_either_engine(vowels, utterances):
    settings = settings_of(vowels, "--epochs", "2")
    (comp, comp_losses), (ref, ref_losses) = (
        vowels.train(engine, *utterances, settings, silent) for engine in ENGINES
    )
    # Adam divides by gradients that may be almost 0, so that rounding errors grow a little.
    assert_allclose(comp_losses, ref_losses, rtol=1e-4)
    for name in ref:
        assert_allclose(comp[name], ref[name], rtol=0, atol=1e-3, err_msg=name)


def test_vowels_seed_decides(vowels, utterances):
    ref, same, other = (
        vowels.train(fastrnn, *utterances, settings_of(vowels, "--epochs=1", seed), silent)[1]
        for seed in ("--seed=1", "--seed=1", "--seed=2")
    )
    assert ref == same != other


def test_vowels_standardizes_by_the_training_data(vowels, utterances):
    train, test = utterances[0][:20], utterances[0][20:]
    comp_train, comp_test = vowels.standardize(train, test)
    steps = np.concatenate(train, axis=1)
    for comp, given in ((comp_train, train), (comp_test, test)):
        for channels, ref in zip(comp, given, strict=True):
            assert channels.dtype == np.float32
            scaled = channels * steps.std(axis=1)[:, np.newaxis]
            assert_allclose(scaled + steps.mean(axis=1)[:, np.newaxis], ref, rtol=0, atol=1e-5)


def test_vowels_noise_is_of_two_kinds(vowels):
    x = np.zeros((12, 200, 30), np.float32)
    noisy = vowels.add_noise(x, rng(0))
    assert noisy.dtype == x.dtype
    assert_array_equal(x, 0)
    by_utterance = noisy.mean(axis=2)
    ref_variance = vowels.UTTERANCE_NOISE**2 + vowels.STEP_NOISE**2 / 30
    assert_allclose(by_utterance.var(), ref_variance, rtol=0.1)
    assert_allclose(noisy.var(axis=2).mean(), vowels.STEP_NOISE**2 * 29 / 30, rtol=0.1)


def test_vowels_command_line(vowels):
    defaults = vowels.parse([])
    assert isinstance(defaults, argparse.Namespace)
    assert (defaults.seed, defaults.plot, defaults.no_reference) == (0, Path("vowels.png"), False)
    assert vowels.parse(["--no-reference", "--plot", "a.png"]).plot == Path("a.png")
    with pytest.raises(SystemExit):
        vowels.parse(["--hidden", "many"])
