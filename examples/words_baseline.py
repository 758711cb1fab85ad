"""What the network of words.py is to be compared with: letter n-grams and logistic regression.

A word is the counts of its 1- to 4-grams, with a mark at either end, in 2**18 hashed columns,
weighted by how rare they are (tf-idf). Logistic regression, one against the rest, is trained by
stochastic gradient descent on the same words, and scored on the same validation words.

    python examples/words_baseline.py
"""

from __future__ import annotations

import argparse
import time

import words_data as data


def main() -> None:
    """Train and score the baseline."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--words-of-each", type=int, default=data.WORDS_OF_EACH)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--alpha", type=float, default=1e-6, help="weight of the penalty")
    parser.add_argument("--test", action="store_true", help="score the test words instead")
    settings = parser.parse_args()

    languages = data.load_words(settings.words_of_each)
    parts = data.split(languages)
    train, scored = parts["train"], parts["test" if settings.test else "validation"]
    model = make_pipeline(
        HashingVectorizer(
            analyzer="char_wb",
            ngram_range=(1, 4),
            n_features=2**18,
            lowercase=False,
            alternate_sign=False,
            norm=None,
        ),
        TfidfTransformer(sublinear_tf=True),
        SGDClassifier(
            "log_loss", alpha=settings.alpha, max_iter=settings.epochs, tol=None, random_state=0
        ),
    )
    start = time.perf_counter()
    model.fit(train, [languages[word] for word in train])
    seconds = time.perf_counter() - start
    accuracy = model.score(scored, [languages[word] for word in scored])
    speed = settings.epochs * len(train) / seconds
    print(f"n-grams: accuracy {accuracy:.2%}, trained in {seconds:.0f} s, {speed:,.0f} words/s")


if __name__ == "__main__":
    main()
