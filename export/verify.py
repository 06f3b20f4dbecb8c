"""An engine against transformers: the same prompts through both, and how far apart they come out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import CheckpointError, DependencyError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.images import to_pixel_values
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling, log_softmax

GREEDY_TOKENS = 64

INSTRUCTION = "You are a radiologist. Please review the slices provided below carefully."
QUESTION = "Based on the slices provided above, is there an abnormality? Answer yes or no."
LONG_SENTENCE = "The lungs are clear, the heart is of normal size, and no fracture is seen. "


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt through the engine and through transformers in float32.

    Logits are compared at the end of the prompt and after each token of the reference's own
    greedy continuation, which both are fed.
    """

    prompt: str
    tokens: int
    max_logit_difference: float
    mean_logit_difference: float
    logit_range: float
    """Largest minus smallest logit of the reference."""
    kl_nats: float
    """Mean KL(reference || engine) over the compared positions."""
    top1_agreement: float
    greedy_equal: int
    """Tokens until the two free-running greedy continuations part."""
    greedy_tokens: int
    """Tokens of the reference up to its end, which counts as one."""
    image_cosine: float | None
    """Smallest cosine of an image token's features; None for text."""


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    chunks: tuple[Chunk, ...]
    pixels: NDArray[np.uint8]
    """[images, rows, columns, 3]"""

    @property
    def ids(self) -> list[int]:
        return [i for chunk in self.chunks for i in chunk.ids]


def verify_engine(
    engine: Engine,
    checkpoint: Path,
    *,
    greedy_tokens: int = GREEDY_TOKENS,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Comparison, ...]:
    """Compare text, one image, three images and a prompt longer than the window.

    Args:
        engine: opened engine directory
        checkpoint: folder of the Hugging Face checkpoint it was exported from
        greedy_tokens: length of the compared continuation
        on_progress: called with prompts done and prompts in all

    Raises:
        DependencyError: torch or transformers is not installed.
        CheckpointError: transformers cannot load the checkpoint.
    """
    reference = Reference(checkpoint, engine.manifest.text.embed_scale)
    cases = list(_cases(engine))
    comparisons = []
    for done, case in enumerate(cases, start=1):
        comparisons.append(_compare(engine, reference, case, greedy_tokens))
        if on_progress:
            on_progress(done, len(cases))
    return tuple(comparisons)


class Reference:
    """`Gemma3ForConditionalGeneration` of transformers, eager attention, float32."""

    def __init__(self, checkpoint: Path, embed_scale: float) -> None:
        """Load the checkpoint; `embed_scale` as the weights' own dtype rounds it.

        transformers derives the scale from the dtype it runs in: in float32 it would multiply
        by a number that the published bfloat16 model never saw.
        """
        try:
            import torch
            import transformers
        except ImportError:
            raise DependencyError(
                "verify needs torch and transformers; from a checkout: pip install '.[cpu,verify]'"
            ) from None
        self._torch = torch
        transformers.utils.logging.disable_progress_bar()
        try:
            model = transformers.Gemma3ForConditionalGeneration.from_pretrained(
                checkpoint, dtype=torch.float32, attn_implementation="eager", local_files_only=True
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"transformers cannot load '{checkpoint}' ({reason}); expected the folder of the "
                "checkpoint the engine was exported from"
            ) from None
        self.model: Any = model.eval()
        self.model.generation_config.eos_token_id = None  # every position is compared
        scale = self.model.model.language_model.embed_tokens.embed_scale
        scale.fill_(embed_scale)

    def image_features(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[images, tokens_per_image, hidden]"""
        with self._torch.inference_mode():
            output = self.model.model.get_image_features(self._torch.from_numpy(pixel_values))
            features = getattr(output, "pooler_output", output)
        result: NDArray[np.float32] = features.numpy()
        return result

    def greedy(
        self,
        ids: list[int],
        pixel_values: NDArray[np.float32] | None,
        tokens: int,
        image_token: int,
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The greedy continuation and the logits each of its tokens was chosen from.

        Returns:
            At most `tokens` ids, and [len(ids), vocabulary] logits
        """
        torch = self._torch
        input_ids = torch.tensor([ids])
        inputs: dict[str, Any] = {"input_ids": input_ids}
        if pixel_values is not None:
            inputs["pixel_values"] = torch.from_numpy(pixel_values)
            inputs["token_type_ids"] = (input_ids == image_token).long()
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=tokens,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        return output.sequences[0, len(ids) :].tolist(), torch.cat(output.logits).float().numpy()


def _cases(engine: Engine) -> Iterator[_Case]:
    builder = engine.prompt
    size = engine.manifest.vision.image_size
    nothing = np.zeros((0, size, size, 3), np.uint8)
    yield _Case("text", (Chunk(builder.text(QUESTION), 0),), nothing)
    for images in (1, 3):
        chunks = (*builder.prefix(INSTRUCTION, images), Chunk(builder.question(QUESTION), 0))
        yield _Case(f"{images} image{'s' * (images > 1)}", chunks, _pictures(images, size))
    window = engine.manifest.text.sliding_window
    length = len(engine.tokenizer.encode(LONG_SENTENCE))
    text = LONG_SENTENCE * (2 * window // length + 1)
    chunks = (
        *builder.prefix(text, 1),
        Chunk(builder.question(QUESTION), 0),
    )
    yield _Case("longer than the window", chunks, _pictures(1, size))


def _pictures(count: int, size: int) -> NDArray[np.uint8]:
    """Smooth seeded pictures [count, size, size, 3]: noise of a few pixels' scale, blown up."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    repeats = -(-size // 16)
    return coarse.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :size, :size]


def _compare(engine: Engine, reference: Reference, case: _Case, tokens: int) -> Comparison:
    pixel_values = features = expected_features = None
    if len(case.pixels):
        pixel_values = to_pixel_values(case.pixels, engine.manifest.vision)
        features = engine.encode_images(case.pixels)
        expected_features = reference.image_features(pixel_values)
    expected_ids, expected = reference.greedy(
        case.ids, pixel_values, tokens, engine.manifest.tokens.image
    )
    prefix = engine.new_prefix(len(case.ids) + tokens)
    read_chunks(prefix, case.chunks[:-1], features)
    generated = prefix.generate(case.chunks[-1].ids, Sampling(), tokens)
    own_ids = [step.token_id for step in generated]
    logits = [prefix.extend(case.chunks[-1])]
    logits += [prefix.extend(Chunk((token,), 0)) for token in expected_ids[:-1]]
    actual = np.stack(logits)
    difference = np.abs(actual - expected)
    log_p, log_q = log_softmax(expected), log_softmax(actual)
    equal, length = common_greedy(own_ids, expected_ids, engine.manifest.tokens.stop)
    return Comparison(
        prompt=case.name,
        tokens=len(case.ids),
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        logit_range=float(expected.max() - expected.min()),
        kl_nats=float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean()),
        top1_agreement=float((actual.argmax(-1) == expected.argmax(-1)).mean()),
        greedy_equal=equal,
        greedy_tokens=length,
        image_cosine=_smallest_cosine(features, expected_features),
    )


def common_greedy(
    own: Sequence[int], reference: Sequence[int], stop: Sequence[int]
) -> tuple[int, int]:
    """Tokens that two greedy continuations share, and how many the reference has.

    Args:
        own: of the engine, which ends ahead of a stop id
        reference: of transformers, which here goes on behind it
        stop: ids that end an answer; ending counts as one token
    """
    end = next((i for i, token in enumerate(reference) if token in stop), None)
    length = len(reference) if end is None else end + 1
    expected = [*reference[:length]] if end is None else [*reference[:end], stop[0]]
    ended = [*own, stop[0]]
    equal = next((i for i in range(length) if ended[i : i + 1] != expected[i : i + 1]), length)
    return equal, length


def read_chunks(
    prefix: Prefix, chunks: tuple[Chunk, ...], features: NDArray[np.float32] | None
) -> None:
    """Extend a prefix by chunks whose images stand in `features` [images, tokens, hidden]."""
    first = 0
    for chunk in chunks:
        part = None if features is None else features[first : first + chunk.images]
        prefix.extend(chunk, part)
        first += chunk.images


def _smallest_cosine(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> float | None:
    if a is None or b is None:
        return None
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / lengths).min())
