"""llama.cpp's formats that `comparisons.quality` measures."""

WHOLE = "-whole"
"""Ends the name of a K format whose blocks are whole, as they are on MedGemma's rows; see `whole_blocks`."""

FORMATS = (
    "f32",
    "bf16",
    "q8_0",
    "q4_k_m",
    f"q4_k_m{WHOLE}",
    "q4_k_s",
    f"q4_k_s{WHOLE}",
    "q4_1",
    "iq4_nl",
    "q4_0",
)

HEAD = "token_embd.weight"
"""The embedding, which is the head too."""


def whole_kind(name: str, variant: str, layers: int) -> str:
    """Type of a matrix in `q4_k_m-whole` or `q4_k_s-whole`, as llama.cpp chooses it for a tied head.

    That is `llama_tensor_get_type` of its src/llama-quant.cpp.
    """
    if name == HEAD:
        return "Q6_K"
    layer, part = int(name.split(".")[1]), name.split(".")[2]
    first, last = layers // 8, 7 * layers // 8
    if variant == f"q4_k_s{WHOLE}":
        is_longer = (part == "attn_v" and layer < 4) or (part == "ffn_down" and layer < first)
        return "Q5_K" if is_longer else "Q4_K"
    is_longer = layer < first or layer >= last or (layer - first) % 3 == 2
    return "Q6_K" if is_longer and part in ("attn_v", "ffn_down") else "Q4_K"
