"""Tell the language of a word from its spelling: training with large batches, on many machines.

A recurrent network reads the letters of a word, each through an embedding, and names one of 24
languages after the last. There are 759,533 words to train on; words_data.py says which.

    pip install -e ".[examples]"
    python examples/words.py --epochs 3
    python examples/words.py --checkpoint words.npz --resume --predict szczęście kitaplar
    mpirun -n 2 python examples/words.py --checkpoint ranks.npz

The learning rate is given for a batch of 256 and grows with the batch (`--scaling`): with its
square root, as suits Adam (S. Malladi et al., "On the SDEs and scaling rules for adaptive gradient
algorithms", arXiv:2205.10287), or linearly (P. Goyal et al., "Accurate, large minibatch SGD",
arXiv:1706.02677, section 2). It rises over the first twentieth of the steps, the warm-up of the
latter, and then falls in a straight line to 0.

The rates were chosen on the validation words with 64 hidden units and one epoch. Batches of 256 at
1e-3, 2e-3, 4e-3 and 8e-3 made 55.6, 59.6, 62.6 and 63.3 % of it, batches of 4,096 at 16e-3 and
32e-3 58.7 and 59.9 %. Linear growth from the best rate of the small batch would be 128e-3.

The order of the words depends on the seed and the epoch alone. A run that is interrupted by SIGINT
or SIGTERM saves a checkpoint and can be resumed, on another number of ranks as well.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import words_data as data
from numpy.typing import NDArray

import fastrnn
import fastrnn.reference
from fastrnn import checkpoint, distributed
from fastrnn.distributed import Ranks
from fastrnn.embedding import embedding_backward, embedding_forward

Array = NDArray[Any]

ENGINES = {"fastrnn": fastrnn, "reference": fastrnn.reference}
SCALINGS = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
BASE_BATCH, WARM_UP, MAX_NORM = 256, 0.05, 1.0
#: Words that are read at once: what they take stays in the processor's caches, unlike a batch.
PART = 512
SAVE_EVERY, CHECK_EVERY = 100, 50  # steps
#: What must not change between a checkpoint and its resumption.
OF_TRAINING = (
    "batch_size", "embedding", "epochs", "hidden", "learning_rate", "scaling", "seed",
    "words_of_each",
)  # fmt: skip


class Outcome(NamedTuple):
    """What a run has found; None where it took too few steps to tell."""

    steps: int  # of the whole training
    loss: float | None  # mean over the steps of this run in its last epoch
    words_per_second: float | None  # of training
    input_share: float | None  # of the training time that was spent waiting for input


def new_parameters(settings: argparse.Namespace, letters: int) -> dict[str, Array]:
    """Draw the network's parameters, and ``Wex`` (n_x, letters), the embedding of each letter."""
    rng = np.random.default_rng(settings.seed)
    n_x, dtype = settings.embedding, np.dtype(settings.dtype)
    parameters = fastrnn.initialize_parameters(
        n_x, settings.hidden, len(data.LANGUAGES), seed=rng, dtype=dtype
    )
    return parameters | {"Wex": rng.standard_normal((n_x, letters)).astype(dtype)}


def forward(engine: ModuleType, words: data.Words, parameters: dict[str, Array]) -> Any:
    """Read words: what the engine's ``rnn_forward`` returns."""
    x = embedding_forward(words.letters, parameters["Wex"])
    a0 = np.zeros((len(parameters["ba"]), x.shape[1]), x.dtype)
    return engine.rnn_forward(x, a0, parameters, words.lengths)


def loss_and_gradients(
    engine: ModuleType, batch: data.Words, parameters: dict[str, Array]
) -> tuple[float, dict[str, Array]]:
    """Sum of the cross-entropies of a batch, and the gradients of all parameters."""
    total, sums = 0.0, {f"d{name}": np.zeros_like(array) for name, array in parameters.items()}
    for part in data.parts_of(batch, PART):
        _, y_pred, caches = forward(engine, part, parameters)
        loss, gradients = engine.output_backward(y_pred, part.languages, caches, reduction="sum")
        gradients |= engine.rnn_backward(gradients["da"], caches)
        letters = parameters["Wex"].shape[1]
        gradients["dWex"] = embedding_backward(gradients["dx"], part.letters, letters)
        total += loss
        for name, array in sums.items():
            array += gradients[name]
    return total, sums


def probabilities(engine: ModuleType, words: data.Words, parameters: dict[str, Array]) -> Array:
    """Probability (n_y, m) of each language after the last letter."""
    _, y_pred, _ = forward(engine, words, parameters)
    return engine.final_states(y_pred, words.lengths)


def confusion_matrix(
    engine: ModuleType, words: data.Words, parameters: dict[str, Array]
) -> NDArray[np.int64]:
    """Count how many words of each language (row) were taken for words of which (column)."""
    confusion = np.zeros((len(data.LANGUAGES),) * 2, np.int64)
    for part in data.parts_of(words, PART):
        likeliest = probabilities(engine, part, parameters).argmax(axis=0)
        np.add.at(confusion, (part.languages, likeliest), 1)
    return confusion


def rate_at(step: int, steps: int, settings: argparse.Namespace) -> float:
    """Learning rate of a step of `steps`."""
    peak = settings.learning_rate * (settings.batch_size / BASE_BATCH) ** SCALINGS[settings.scaling]
    warm_up = max(1, round(WARM_UP * steps))
    return peak * min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


class Training:
    """Parameters, their optimizer and how many steps they have been through."""

    def __init__(
        self, words: data.Words, letters: int, settings: argparse.Namespace, ranks: Ranks
    ) -> None:
        self.words, self.settings, self.ranks = words, settings, ranks
        self.engine = ENGINES[settings.engine]
        self.parameters = new_parameters(settings, letters)
        self.optimizer = fastrnn.Adam(self.parameters)
        self.step = 0
        self.steps_of_epoch = -(-len(words.lengths) // settings.batch_size)
        self.steps = settings.epochs * self.steps_of_epoch

    @property
    def epoch(self) -> int:
        """Whole epochs so far."""
        return self.step // self.steps_of_epoch

    def save(self) -> None:
        """Write the checkpoint, if there is to be one."""
        if self.settings.checkpoint and self.ranks.rank == 0:
            checkpoint.save(
                self.settings.checkpoint,
                self.parameters,
                self.optimizer,
                step=self.step,
                epoch=self.epoch,
                settings={name: getattr(self.settings, name) for name in OF_TRAINING},
            )

    def resume(self) -> None:
        """Go on from the checkpoint, which rank 0 reads for all."""
        state, step = self.optimizer.state_dict(), np.zeros((), np.int64)
        if self.ranks.rank == 0:
            path = self.settings.checkpoint
            progress = checkpoint.load(path, self.parameters, self.optimizer)
            for name, value in progress.settings.items():
                if value != getattr(self.settings, name):
                    option = "--" + name.replace("_", "-")
                    raise checkpoint.CheckpointError(f"{path} was trained with {option} {value}")
            state, step[...] = self.optimizer.state_dict(), progress.step
        self.ranks.broadcast(self.parameters)
        self.ranks.broadcast(state)
        self.ranks.broadcast({"step": step})
        self.optimizer.load_state_dict(state)
        self.step = int(step)

    def batches(self, last: int) -> Iterator[data.Words]:
        """Batches of this rank, from the present step until the end of the epoch or `last`.

        The words of a batch are in the order of their lengths, so that its parts hold words of
        about the same length and every rank gets as much to do.
        """
        size, epoch = self.settings.batch_size, self.epoch
        order = data.order_of_epoch(len(self.words.lengths), self.settings.seed, epoch)
        first = epoch * self.steps_of_epoch
        for step in range(self.step, min(first + self.steps_of_epoch, last)):
            chosen = order[(step - first) * size :][:size]
            by_length = chosen[np.argsort(self.words.lengths[chosen], kind="stable")]
            yield data.chosen_of(self.words, self.ranks.share(by_length))

    def take_step(self, batch: data.Words, stop: checkpoint.Stop) -> distributed.Reduced:
        """Train on one batch; find out whether a signal has asked any rank to stop."""
        self.optimizer.learning_rate = rate_at(self.step, self.steps, self.settings)
        loss, gradients = loss_and_gradients(self.engine, batch, self.parameters)
        found = self.ranks.reduce(gradients, loss, len(batch.lengths), stop=bool(stop))
        fastrnn.clip_gradients(gradients, MAX_NORM)
        self.optimizer.step(gradients)
        self.step += 1
        if self.step % CHECK_EVERY == 0:
            self.ranks.check_in_sync(self.parameters)
        return found

    def run(self, validation: data.Words) -> Outcome:
        """Train to the end, to ``--max-steps`` or to a signal; print the epochs' accuracies."""
        last = min(self.steps, self.settings.max_steps or self.steps)
        clock, loss, stopped = Clock(), None, False
        with checkpoint.stop_on_signals() as stop:
            while self.step < last and not stopped:
                loss, stopped = self._run_epoch(last, stop, clock)
                self.save()
                if self.ranks.rank == 0:
                    confusion = confusion_matrix(self.engine, validation, self.parameters)
                    accuracy = f"validation accuracy {accuracy_of(confusion):.2%}"
                    print(f"step {self.step} of {self.steps}: {accuracy}", flush=True)
        if stopped and self.ranks.rank == 0:
            print("stopped by a signal" + (", and saved" if self.settings.checkpoint else ""))
        return Outcome(self.step, loss, clock.words_per_second, clock.input_share)

    def _run_epoch(self, last: int, stop: checkpoint.Stop, clock: Clock) -> tuple[float, bool]:
        """Train to the end of the epoch; return the mean loss and whether a signal has come."""
        from tqdm import tqdm

        bar = tqdm(
            desc=f"epoch {self.epoch + 1}", unit="step", total=self.steps_of_epoch,
            initial=self.step % self.steps_of_epoch, disable=None if self.ranks.rank == 0 else True,
        )  # fmt: skip
        total, words = 0.0, 0
        with bar, data.Prefetched(self.batches(last)) as batches:
            clock.start()
            for batch in batches:
                found = self.take_step(batch, stop)
                clock.count(found.labelled, batches.waited)
                total, words = total + found.loss * found.labelled, words + found.labelled
                speed = f"{clock.words_per_second or 0:,.0f}"
                bar.set_postfix(loss=f"{total / words:.3f}", words_per_s=speed, refresh=False)
                bar.update()
                if found.stop:
                    break
                if self.step % SAVE_EVERY == 0:
                    self.save()
        return total / words, found.stop


class Clock:
    """How fast the steps are, and how long they wait for input.

    The first one is left out, because it may compile.
    """

    def __init__(self) -> None:
        self.words, self.seconds, self.waited = 0, 0.0, 0.0
        self._first = True

    def start(self) -> None:
        """Begin a step."""
        self._began = time.perf_counter()

    def count(self, words: int, waited: float) -> None:
        """End a step of so many words, which waited so long for them, and begin another."""
        seconds = time.perf_counter() - self._began
        if not self._first:
            self.words += words
            self.seconds += seconds
            self.waited += waited
        self._first = False
        self.start()

    @property
    def words_per_second(self) -> float | None:
        """None before there is anything to tell."""
        return self.words / self.seconds if self.seconds else None

    @property
    def input_share(self) -> float | None:
        """Of the time; None before there is anything to tell."""
        return self.waited / self.seconds if self.seconds else None


def accuracy_of(confusion: NDArray[np.int64]) -> float:
    """Share of the words on the diagonal."""
    return float(confusion.trace() / confusion.sum())


def predict(training: Training, alphabet: str, words: Sequence[str]) -> None:
    """Print the three likeliest languages of each word."""
    letters, lengths = data.encode([word.lower() for word in words], alphabet)
    batch = data.Words(letters, lengths, np.full(len(words), -1))
    names = list(data.LANGUAGES.values())
    columns = probabilities(training.engine, batch, training.parameters).T
    for word, column in zip(words, columns, strict=True):
        likeliest = np.argsort(-column)[:3]
        print(f"{word}: " + ", ".join(f"{names[i]} {column[i]:.1%}" for i in likeliest))


def draw(path: Path, confusion: NDArray[np.int64], title: str) -> None:
    """Save a picture of which language was taken for which."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9), layout="constrained")
    matrix = figure.subplots()
    share = confusion / confusion.sum(axis=1, keepdims=True)
    image = matrix.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(share >= 0.005):
        color = "white" if share[row, column] > 0.5 else "black"
        text = f"{100 * share[row, column]:.0f}"
        matrix.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    names = list(data.LANGUAGES.values())
    matrix.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    matrix.set_yticks(range(len(names)), names)
    matrix.set(title=title, xlabel="taken for", ylabel="language of the word")
    figure.colorbar(image, label="share of the language's words (numbers: %)", shrink=0.8)
    figure.savefig(path, dpi=110)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train an RNN to tell the language of a word from its spelling.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--batch-size", type=int, default=4096, help="words of a step, over all ranks")
    add("--hidden", type=int, default=256, help="hidden units")
    add("--embedding", type=int, default=32, help="numbers that stand for a letter")
    add("--epochs", type=int, default=3, help="passes over the training words")
    add("--max-steps", type=int, help="stop there, with the schedule of all epochs")
    add("--learning-rate", type=float, default=8e-3, help=f"of a batch of {BASE_BATCH}")
    add("--scaling", choices=SCALINGS, default="sqrt", help="of the learning rate with the batch")
    add("--dtype", choices=["float32", "float64"], default="float32", help="to compute in")
    add("--seed", type=int, default=0, help="of weights and order")
    add("--engine", choices=ENGINES, default="fastrnn", help="what computes")
    add("--words-of-each", type=int, default=data.WORDS_OF_EACH, help="most frequent, by language")
    add("--checkpoint", type=Path, help="file to write")
    add("--resume", action="store_true", help="go on from the checkpoint")
    add("--mpi", action="store_true", help="use MPI even if the launcher is not recognized")
    add("--test", action="store_true", help="score the test words as well, once all is settled")
    add("--predict", nargs="+", metavar="WORD", help="words whose language to tell in the end")
    add("--json", type=Path, help="file for the results")
    add("--plot", type=Path, help="picture to write")
    settings = parser.parse_args(arguments)
    if settings.resume and not settings.checkpoint:
        parser.error("--resume needs --checkpoint")
    for name in ("batch_size", "hidden", "embedding", "epochs", "max_steps", "words_of_each"):
        number = getattr(settings, name)
        if number is not None and number < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    # Of several machines, only that of rank 0 need have the files.
    if not (settings.mpi or distributed.launched()):
        for path in (settings.checkpoint, settings.json, settings.plot):
            if path and not path.parent.is_dir():
                parser.error(f"there is no folder {path.parent} for {path.name}")
        if settings.resume and not settings.checkpoint.exists():
            parser.error(f"there is no {settings.checkpoint} to go on from")
    return settings


def report(training: Training, outcome: Outcome, words: dict[str, data.Words]) -> None:
    """Print, store and draw what rank 0 has to tell in the end."""
    settings, ranks = training.settings, training.ranks
    part = "test" if settings.test else "validation"
    confusion = confusion_matrix(training.engine, words[part], training.parameters)
    accuracy = accuracy_of(confusion)
    speed = (
        f", {outcome.words_per_second:,.0f} words/s, {outcome.input_share:.1%} of the time "
        "waiting for input"
        if outcome.words_per_second
        else ""
    )
    print(f"{settings.engine}: {part} accuracy {accuracy:.2%} after {outcome.steps} steps{speed}")
    if settings.json:
        found = outcome._asdict() | {"accuracy": accuracy, "split": part, "ranks": ranks.size}
        found |= {name: value for name, value in vars(settings).items() if name in OF_TRAINING}
        found |= {"engine": settings.engine, "dtype": settings.dtype}
        settings.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if settings.plot:
        draw(settings.plot, confusion, f"{part.capitalize()} words, {accuracy:.1%} right")
        print(f"confusion matrix: {settings.plot}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and tell what came of it."""
    settings = parse(arguments)
    use_mpi = settings.mpi or distributed.launched()
    ranks = distributed.connect() if use_mpi else Ranks()
    words, alphabet = data.load(settings.words_of_each)
    training = Training(words["train"], len(alphabet) + 1, settings, ranks)
    if settings.resume:
        training.resume()
    ranks.broadcast(training.parameters)
    outcome = training.run(words["validation"])
    if ranks.rank == 0:
        report(training, outcome, words)
        if settings.predict:
            predict(training, alphabet, settings.predict)


if __name__ == "__main__":
    main()
