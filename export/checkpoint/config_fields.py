"""The fields of a Gemma 3 config.json, with the types and defaults that transformers 5.24 gives them.

Its classes Gemma3Config, Gemma3TextConfig and SiglipVisionConfig refuse a value of another type, so a
file that they refuse is refused here. Fields that they do not have are ignored, as they ignore them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from edge_medgemma.runtime.errors import CheckpointError

Size = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Pair = Annotated[list[Size], msgspec.Meta(min_length=2, max_length=2)]
FloatName = Literal["float32", "float16", "bfloat16", "float64"]
TokenIds = int | list[int] | None


class CommonFields(msgspec.Struct):
    """What every config of transformers has; none of it changes a graph."""

    architectures: list[str] | None = None
    transformers_version: str | None = None
    dtype: FloatName | None = None
    torch_dtype: FloatName | None = None
    output_hidden_states: bool | None = False
    return_dict: bool | None = True
    chunk_size_feed_forward: int = 0
    is_encoder_decoder: bool = False
    id2label: dict[Annotated[str, msgspec.Meta(pattern=r"^\d+$")], Any] | None = None
    label2id: dict[str, int] | None = None
    problem_type: (
        Literal["regression", "single_label_classification", "multi_label_classification"] | None
    ) = None


class RopeFields(msgspec.Struct, forbid_unknown_fields=True):
    """Rotary embedding of one kind of layer."""

    rope_type: str | msgspec.UnsetType = msgspec.UNSET
    type: str | msgspec.UnsetType = msgspec.UNSET
    rope_theta: Positive | msgspec.UnsetType = msgspec.UNSET
    factor: Positive | msgspec.UnsetType = msgspec.UNSET


class RopeParameters(msgspec.Struct, forbid_unknown_fields=True):
    """Rotary embeddings by the kind of layer."""

    full_attention: RopeFields | None = None
    sliding_attention: RopeFields | None = None


class TextFields(CommonFields):
    """`text_config`, defaults of Gemma3TextConfig."""

    model_type: Literal["gemma3_text"] = "gemma3_text"
    vocab_size: Size = 262_208
    hidden_size: Size = 2304
    intermediate_size: Size = 9216
    num_hidden_layers: Size = 26
    num_attention_heads: Size = 8
    num_key_value_heads: Size = 4
    head_dim: Size = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: Size = 131_072
    initializer_range: float = 0.02
    rms_norm_eps: Positive = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = 0
    eos_token_id: TokenIds = 1
    bos_token_id: int | None = 2
    tie_word_embeddings: bool = True
    rope_parameters: RopeParameters | None = None
    attention_bias: bool = False
    attention_dropout: int | float | None = 0.0
    query_pre_attn_scalar: Size = 256
    sliding_window: Size = 4096
    layer_types: list[str] | None = None
    final_logit_softcapping: float | None = None
    attn_logit_softcapping: float | None = None
    use_bidirectional_attention: bool | None = False
    rope_scaling: RopeFields | None = None
    rope_theta: Positive = 1_000_000.0
    rope_local_base_freq: Positive = 10_000.0
    sliding_window_pattern: Size = 6


class VisionFields(CommonFields):
    """`vision_config`, defaults of SiglipVisionConfig."""

    model_type: Literal["siglip_vision_model"] = "siglip_vision_model"
    hidden_size: Size = 768
    intermediate_size: Size = 3072
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 12
    num_channels: int = 3
    image_size: Size | Pair = 224
    patch_size: Size | Pair = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: Positive = 1e-6
    attention_dropout: int | float = 0.0
    vision_use_head: bool = True


class ConfigFields(CommonFields):
    """config.json, defaults of Gemma3Config."""

    text_config: TextFields | None = None
    vision_config: VisionFields | None = None
    mm_tokens_per_image: Size = 256
    boi_token_index: int | None = 255_999
    eoi_token_index: int | None = 256_000
    image_token_index: int | None = 262_144
    initializer_range: float | None = 0.02
    tie_word_embeddings: bool | None = True

    @property
    def text(self) -> TextFields:
        """`text_config`, or its defaults."""
        return self.text_config or TextFields()

    @property
    def vision(self) -> VisionFields:
        """`vision_config`, or its defaults."""
        return self.vision_config or VisionFields()


INTEGERS_ARE_FLOATS = frozenset(("rope_theta", "rope_local_base_freq", "factor"))
"""Numbers that transformers keeps in a dictionary, where it does not ask for a float."""


def config_fields(config: Mapping[str, Any]) -> ConfigFields:
    """The fields of a config.json.

    Raises:
        CheckpointError: a value that transformers refuses or that no graph can have.
    """
    try:
        fields = msgspec.convert(config, ConfigFields)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"config.json does not fit Gemma 3: {_place(str(error))}") from None
    _require_same_kinds(config, fields, "")
    return fields


def _place(message: str) -> str:
    """msgspec's sentence with the place as config.json writes it."""
    return message.replace("`$.", "`").replace(" - at `$`", "")


def _require_same_kinds(raw: Mapping[str, Any], fields: msgspec.Struct, place: str) -> None:
    """msgspec reads 2.0 as an integer and 1 as a float; transformers refuses both."""
    for name in fields.__struct_fields__:
        found, value = raw.get(name), getattr(fields, name)
        if isinstance(value, msgspec.Struct):
            _require_same_kinds(found or {}, value, f"{place}{name}.")
        elif (
            name in raw
            and isinstance(value, int | float)
            and type(value) is not type(found)
            and not (name in INTEGERS_ARE_FLOATS and isinstance(found, int))
        ):
            kind = "an integer" if isinstance(value, int) else "a float"
            raise CheckpointError(
                f"config.json does not fit Gemma 3: {place}{name} is {found!r}, expected {kind}"
            )
