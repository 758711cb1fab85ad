"""The words that words.py learns from, and the batches that it trains on.

wordfreq (R. Speer, "rspeer/wordfreq: v3.0", 2022, doi:10.5281/zenodo.7199437) lists the words of
each language by frequency. Taken are the 50,000 most frequent of each that are 2 to 24 Latin
letters and nothing else. A word of several languages belongs to the one in which it is most
frequent; where that is equal, to the first by code. 843,925 different words remain, shuffled once
by a fixed seed: 5 % to validate, 5 % to test, the rest to train on.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LANGUAGES = {
    "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German", "en": "English",
    "es": "Spanish", "fi": "Finnish", "fr": "French", "hu": "Hungarian", "id": "Indonesian",
    "is": "Icelandic", "it": "Italian", "lt": "Lithuanian", "lv": "Latvian", "nb": "Norwegian",
    "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "sh": "Serbo-Croatian",
    "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "tr": "Turkish",
}  # fmt: skip
WORDS_OF_EACH, SHORTEST, LONGEST = 50_000, 2, 24
SPLIT_SEED, HELD_OUT = 0, 0.05

#: What a letter becomes that the training words do not hold, and what stands past a word's end.
UNKNOWN = 0


class Words(NamedTuple):
    """Encoded words, a row each: all of a part of the data, or those of a batch."""

    letters: NDArray[np.uint8]  # (N, T), UNKNOWN past the end
    lengths: NDArray[np.int64]  # (N,)
    languages: NDArray[np.int64]  # (N,) in the order of LANGUAGES


def is_latin(word: str) -> bool:
    """Whether a word is of Latin letters alone."""
    return word.isalpha() and all("LATIN" in unicodedata.name(letter, "") for letter in word)


def most_frequent(code: str, count: int) -> Iterator[tuple[str, int]]:
    """Give the most frequent words of a language, each with how rare it is."""
    from wordfreq import get_frequency_list

    # Words of about the same frequency share a list; those of the next one are 2.3 % rarer.
    lists = get_frequency_list(code)
    get_frequency_list.cache_clear()  # else all words of all languages stay in memory
    words = ((word, rarity) for rarity, alike in enumerate(lists) for word in alike)
    clean = (pair for pair in words if SHORTEST <= len(pair[0]) <= LONGEST and is_latin(pair[0]))
    return itertools.islice(clean, count)


def load_words(of_each: int = WORDS_OF_EACH) -> dict[str, str]:
    """Collect the words, with the code of the language that each belongs to."""
    best: dict[str, tuple[int, str]] = {}
    for code in sorted(LANGUAGES):
        for word, rarity in most_frequent(code, of_each):
            if word not in best or rarity < best[word][0]:
                best[word] = rarity, code
    return {word: code for word, (_, code) in best.items()}


def split(words: dict[str, str]) -> dict[str, list[str]]:
    """Share the words out to "train", "validation" and "test", always in the same way."""
    everything = np.array(sorted(words))
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(everything).tolist()
    held_out = round(HELD_OUT * len(shuffled))
    return {
        "validation": shuffled[:held_out],
        "test": shuffled[held_out : 2 * held_out],
        "train": shuffled[2 * held_out :],
    }


def encode(words: list[str], alphabet: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Number the letters by their place in the alphabet; give them and the words' lengths."""
    numbers = {letter: number for number, letter in enumerate(alphabet, UNKNOWN + 1)}
    letters = np.zeros((len(words), LONGEST), np.uint8)
    for row, word in zip(letters, words, strict=True):
        row[: len(word)] = [numbers.get(letter, UNKNOWN) for letter in word]
    return letters, np.array([len(word) for word in words], np.int64)


def load(of_each: int = WORDS_OF_EACH) -> tuple[dict[str, Words], str]:
    """Load the encoded words of each part, and the alphabet of the training words."""
    languages = load_words(of_each)
    parts = split(languages)
    alphabet = "".join(sorted(set("".join(parts["train"]))))
    places = {code: place for place, code in enumerate(LANGUAGES)}
    return {
        name: Words(
            *encode(part, alphabet), np.array([places[languages[word]] for word in part], np.int64)
        )
        for name, part in parts.items()
    }, alphabet


def chosen_of(words: Words, chosen: NDArray[np.int64] | slice) -> Words:
    """Take some words, with no more steps than the longest of them has."""
    lengths = words.lengths[chosen]
    T = int(lengths.max(initial=1))
    return Words(words.letters[chosen, :T], lengths, words.languages[chosen])


def parts_of(words: Words, size: int) -> Iterator[Words]:
    """Cut words into parts of at most `size`."""
    for start in range(0, len(words.lengths), size):
        yield chosen_of(words, slice(start, start + size))


def order_of_epoch(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Shuffle the words for an epoch: the same on any number of ranks, and after a resumption."""
    return np.random.default_rng([seed, epoch]).permutation(count)


class Prefetched:
    """Prepares items in a thread while the earlier ones are used, within a ``with``.

    The kernels that train release the interpreter's lock, so that the thread runs beside them.
    """

    def __init__(self, items: Iterable[Words], ahead: int = 4) -> None:
        self.waited = 0.0  #: seconds that the user of the items has waited for the last one
        self._ready: queue.Queue[Words | BaseException | None] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(items,), daemon=True)

    def __enter__(self) -> Prefetched:
        """Start to prepare."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread, at whichever item it is."""
        self._closed.set()
        self._thread.join()

    def _fill(self, items: Iterable[Words]) -> None:
        try:
            for item in items:
                self._put(item)
                if self._closed.is_set():
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Words | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                pass

    def __iter__(self) -> Iterator[Words]:
        """Give the items in their order; an exception in the thread is raised here."""
        while True:
            start = time.perf_counter()
            item = self._ready.get()
            self.waited = time.perf_counter() - start
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
