from edge_medgemma.export.checkpoint.tokens import token_spec

CONFIG = {"model_type": "gemma3", "eos_token_id": [1, 106]}


def test_every_stop_id_is_kept_once():
    found = {"<end_of_turn>": 106, "<unused94>": 100, "<unused95>": 101}
    tokens = token_spec(CONFIG, {"eos_token_id": 1}, found)
    assert tokens.stop == (1, 106)
    assert (tokens.thought_begin, tokens.thought_end) == (100, 101)
    assert (tokens.bos, tokens.pad, tokens.image) == (2, 0, 262_144)
    assert token_spec(CONFIG, {}, {}).thought_begin is None
