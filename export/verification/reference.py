"""transformers on a checkpoint: its own processor, chat template and model, in float32."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_medgemma.export.verification.cases import Case
from edge_medgemma.runtime.errors import CheckpointError, DependencyError

_TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Name in a .safetensors file -> name in torch"""


@dataclass(frozen=True, slots=True)
class ReferenceInputs:
    """A case as the checkpoint's processor prepares it."""

    ids: tuple[int, ...]
    pixel_values: NDArray[np.float32]
    """[images, 3, rows, columns]; no images for text"""
    token_types: tuple[int, ...]
    """1 for a token of an image, else 0"""


class Reference:
    """AutoProcessor and Gemma3ForConditionalGeneration, eager attention, float32."""

    def __init__(self, checkpoint: Path, adapter: Path | None = None) -> None:
        """Load both, and merge the PEFT adapter of a folder by PEFT.

        Raises:
            DependencyError: torch, transformers or, for an adapter, peft is not installed.
            CheckpointError: transformers or peft cannot load a folder.
        """
        try:
            import torch
            import transformers

            if adapter is not None:
                import peft
        except ImportError as error:
            raise DependencyError(
                f"verify needs '{error.name}'; from a checkout: pip install '.[cpu,verify]'"
            ) from None
        self._torch = torch
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        try:
            # The published model was made with PIL's filters; torchvision's round differently.
            self._processor: Any = transformers.AutoProcessor.from_pretrained(
                checkpoint, backend="pil", local_files_only=True
            )
            model, loading = transformers.Gemma3ForConditionalGeneration.from_pretrained(
                checkpoint,
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # noqa: BLE001 transformers raises whatever its parts raise
            raise _unreadable("transformers", checkpoint, error) from None
        if loading["missing_keys"]:
            name = min(loading["missing_keys"])
            raise CheckpointError(
                f"transformers finds no '{name}' in '{checkpoint}' and would draw it at random; "
                "download the checkpoint again"
            )
        self._set_embed_scale(model, checkpoint)
        if adapter is not None:
            try:
                model = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
            except Exception as error:  # noqa: BLE001 peft raises whatever its parts raise
                raise _unreadable("peft", adapter, error) from None
        self._model: Any = model.eval()
        self._model.generation_config.eos_token_id = None  # every position is compared

    @property
    def image_size(self) -> int:
        """Side of the vision tower's input in pixels."""
        return int(self._model.config.vision_config.image_size)

    @property
    def window(self) -> int:
        """Tokens that a sliding-attention layer sees."""
        return int(self._model.config.get_text_config().sliding_window)

    def num_tokens(self, text: str) -> int:
        """Tokens of plain text."""
        return len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def spelling(self, token_id: int) -> str:
        """A token as the checkpoint's tokenizer spells it."""
        return str(self._processor.tokenizer.convert_ids_to_tokens(token_id))

    def inputs(self, case: Case) -> ReferenceInputs:
        """What the checkpoint's chat template, tokenizer and image processor make of a case.

        Raises:
            CheckpointError: they fail.
        """
        content: list[dict[str, object]] = []
        if len(case.pictures):
            content.append({"type": "text", "text": case.instruction})
        for number, picture in enumerate(case.pictures, start=1):
            content.append({"type": "image", "image": Image.fromarray(picture)})
            content.append({"type": "text", "text": f"SLICE {number}"})
        content.append({"type": "text", "text": case.question})
        try:
            prepared = self._processor.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
            )
        except Exception as error:  # noqa: BLE001 a template of the checkpoint runs here
            raise CheckpointError(
                f"the checkpoint's processor does not take the prompt '{case.name}' "
                f"({_first_line(error)}); expected Gemma 3's processor and chat template"
            ) from None
        ids = prepared["input_ids"][0]
        types = prepared.get("token_type_ids")
        pixel_values = prepared.get("pixel_values")
        return ReferenceInputs(
            ids=tuple(ids.tolist()),
            pixel_values=np.zeros((0, 3, 0, 0), np.float32)
            if pixel_values is None
            else pixel_values.float().numpy(),
            token_types=(0,) * len(ids) if types is None else tuple(types[0].tolist()),
        )

    def image_features(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[images, tokens_per_image, hidden] of [images, 3, rows, columns]."""
        with self._torch.inference_mode():
            output = self._model.model.get_image_features(self._torch.from_numpy(pixel_values))
            features = getattr(output, "pooler_output", output)
        result: NDArray[np.float32] = features.numpy()
        return result

    def greedy(self, inputs: ReferenceInputs, tokens: int) -> tuple[list[int], NDArray[np.float32]]:
        """The greedy continuation and the logits each of its tokens was chosen from.

        Returns:
            `tokens` ids, and [tokens, vocabulary] logits
        """
        torch = self._torch
        input_ids = torch.tensor([inputs.ids])
        given: dict[str, Any] = {"input_ids": input_ids}
        if len(inputs.pixel_values):
            given["pixel_values"] = torch.from_numpy(inputs.pixel_values)
            given["token_type_ids"] = torch.tensor([inputs.token_types])
        with torch.inference_mode():
            output = self._model.generate(
                **given,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=tokens,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        continuation = output.sequences[0, len(inputs.ids) :].tolist()
        return continuation, torch.cat(output.logits).float().numpy()

    def _set_embed_scale(self, model: Any, checkpoint: Path) -> None:
        """Round the embedding's scale as the stored weights' dtype does.

        In float32 transformers would multiply by a number that the published bfloat16 model
        never saw.
        """
        stored = getattr(self._torch, _TORCH_DTYPES[_embedding_dtype(checkpoint)])
        scale = model.model.language_model.embed_tokens.embed_scale
        exact = model.config.get_text_config().hidden_size ** 0.5
        scale.fill_(self._torch.tensor(exact, dtype=stored).item())


def _embedding_dtype(checkpoint: Path) -> str:
    """Type of the token embedding as its file names it, such as BF16."""
    from safetensors import safe_open

    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, "np") as stored:
            for name in stored.keys():  # noqa: SIM118 the handle is no mapping
                if name.endswith("embed_tokens.weight"):
                    dtype: str = stored.get_slice(name).get_dtype()
                    return dtype
    raise CheckpointError(
        f"'{checkpoint}' stores no token embedding as .safetensors; expected the folder of the "
        "checkpoint the engine was exported from"
    )


def _unreadable(library: str, folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{library} cannot load '{folder}' ({_first_line(error)}); expected the complete folder "
        "that the engine was exported from, with tokenizer_config.json and processor_config.json"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
