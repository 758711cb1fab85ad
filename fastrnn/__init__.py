"""Recurrent networks on batches of variable-length sequences, compiled with Numba."""

from fastrnn import checkpoint, distributed, embedding, reference
from fastrnn.optimizers import SGD, Adam, clip_gradients
from fastrnn.output import output_backward, softmax
from fastrnn.parameters import initialize_parameters
from fastrnn.rnn import (
    final_states,
    rnn_backward,
    rnn_cell_backward,
    rnn_cell_forward,
    rnn_forward,
    rnnCell_backward,
    rnnCell_forward,
)
from fastrnn.sequences import pad_sequences

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "checkpoint",
    "clip_gradients",
    "distributed",
    "embedding",
    "final_states",
    "initialize_parameters",
    "output_backward",
    "pad_sequences",
    "reference",
    "rnnCell_backward",
    "rnnCell_forward",
    "rnn_backward",
    "rnn_cell_backward",
    "rnn_cell_forward",
    "rnn_forward",
    "softmax",
]
