"""The same network with its channels in another order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LANGUAGE = "language_model.model."


class Shuffle:
    """Orders of the channels that no part of a Gemma 3 tells apart, drawn from a seed.

    Hidden channels, those of every feed-forward layer and those of every value head may stand in any
    order, as long as all tensors follow it; rotary positions pair the channels of queries and keys,
    so those stay. Weights that went through a quantiser lie on the grid of its blocks, where the same
    quantiser finds them again without loss. In another order no block stays whole, so that all
    quantisers meet weights that none of them has formed.
    """

    def __init__(self, text: dict[str, Any], seed: int) -> None:
        """Draw the orders; `text` is the text_config of config.json."""
        generator = np.random.default_rng(seed)
        layers, head_dim = text["num_hidden_layers"], text["head_dim"]
        self._hidden = generator.permutation(text["hidden_size"])
        self._wide = [generator.permutation(text["intermediate_size"]) for _ in range(layers)]
        self._values, self._outputs = [], []
        share = text["num_attention_heads"] // text["num_key_value_heads"]
        for _ in range(layers):
            heads = [generator.permutation(head_dim) for _ in range(text["num_key_value_heads"])]
            queries = [order for order in heads for _ in range(share)]
            self._values.append(_side_by_side(heads))
            self._outputs.append(_side_by_side(queries))

    def apply(self, name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """A tensor, by its name in the hub's files, with its channels in the new order.

        Linear layers are [outputs, inputs]; the projector is [vision channels, hidden channels].
        """
        if name == "multi_modal_projector.mm_input_projection_weight":
            return np.ascontiguousarray(weight[:, self._hidden])
        if not name.startswith(LANGUAGE):
            return weight
        *place, kind, _ = name.removeprefix(LANGUAGE).split(".")
        layer = int(place[1]) if place else 0
        if kind in ("q_norm", "k_norm"):
            return weight
        if weight.ndim == 1:
            return weight[self._hidden]
        rows, columns = slice(None), self._hidden
        if kind in ("gate_proj", "up_proj"):
            rows = self._wide[layer]
        elif kind == "v_proj":
            rows = self._values[layer]
        elif kind == "down_proj":
            rows, columns = self._hidden, self._wide[layer]
        elif kind == "o_proj":
            rows, columns = self._hidden, self._outputs[layer]
        return np.ascontiguousarray(weight[rows][:, columns])


def _side_by_side(orders: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([order + head * len(order) for head, order in enumerate(orders)])
