"""The head is the one that transformers uses, or a checkpoint on which its versions disagree is refused."""

import json

import ml_dtypes
import numpy as np
import pytest
from support.checkpoint_files import rewrite_json, rewrite_weights

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING
from edge_medgemma.runtime.errors import CheckpointError

TABLE = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"


def store(folder, head, top=None, text=None):
    """Store the head (none, equal, trained or alone), and say of the tie what is given."""

    def change(tensors):
        table = tensors[TABLE]
        trained = table.copy()
        trained[-1, -1] += 1
        if head == "alone":
            del tensors[TABLE]
        heads = {
            "none": {},
            "equal": {HEAD: table},
            "trained": {HEAD: trained},
            "alone": {HEAD: trained},
        }
        return tensors | heads[head]  # fmt: skip

    rewrite_weights(folder, change)
    config = json.loads((folder / "config.json").read_text())
    if text is not None:
        config["text_config"]["tie_word_embeddings"] = text
    if top is not None:
        config["tie_word_embeddings"] = top
    rewrite_json(folder / "config.json", config)


@pytest.mark.parametrize("top", [None, True, False])
@pytest.mark.parametrize("text", [None, False])
@pytest.mark.parametrize("head", ["none", "equal", "trained", "alone"])
def test_the_head_is_that_of_transformers_or_refused(folder, head, top, text):
    from transformers import Gemma3ForConditionalGeneration

    store(folder, head, top, text)
    is_tied, is_text_tied = top is not False, text is not False
    is_refused = {
        "none": not is_tied or not is_text_tied,
        "equal": False,
        "trained": is_tied and is_text_tied,
        "alone": not is_tied,
    }[head]
    if is_refused:
        with pytest.raises(CheckpointError, match=r"lm_head|no token embedding"):
            open_checkpoint(str(folder))
        return
    loaded, report = Gemma3ForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not report["missing_keys"]
    checkpoint = open_checkpoint(str(folder))
    np.testing.assert_array_equal(checkpoint.head.read(), loaded.lm_head.weight.detach().numpy())
    table = loaded.model.language_model.embed_tokens.weight.detach().numpy()
    np.testing.assert_array_equal(checkpoint.tensors[EMBEDDING].read(), table)


def test_a_head_for_another_vocabulary(folder):
    store(folder, "trained", top=False)
    rewrite_weights(folder, lambda tensors: tensors | {HEAD: tensors[HEAD][:-1]})
    with pytest.raises(CheckpointError, match=rf"'{HEAD}' has shape \(767, 96\)"):
        open_checkpoint(str(folder))


def test_tables_are_compared_to_their_last_rows(folder, monkeypatch):
    from edge_medgemma.export.checkpoint import head

    monkeypatch.setattr(head, "ROWS", 100)
    store(folder, "trained")
    with pytest.raises(CheckpointError, match="transformers 4 would drop it"):
        open_checkpoint(str(folder))


def test_an_equal_head_of_another_dtype_is_the_embedding(folder):
    rewrite_weights(folder, lambda t: t | {HEAD: t[TABLE].astype(ml_dtypes.bfloat16)})
    assert "head.weight" not in open_checkpoint(str(folder)).tensors
