"""What an engine of the real weights may lose; `make real-weights` holds it to these."""

MAX_KL_NATS = {
    "bf16": 3e-4,
    "fp16": 2e-5,
    "int8": 0.006,
    "int4": 0.12,
}
"""Mean KL(float32 engine || engine), token by token over medical_text.txt, by precision of `export`
without a calibration, but fp16's, which needs one."""

FP32_KL_NATS = 1e-9
"""KL(transformers || float32 engine): sums in another order leave a hundredth of it."""

LONG_KL_NATS = 1e-8
"""The same behind 16,368 tokens."""

SHUFFLED_LOGITS = 1e-4
"""Largest difference of a logit when channels stand in another order, as a share of the largest."""

PREFILL_ATTENTION_DIFFERENCE = 2**-7
"""Norm of the difference of attention of many rows from the formula, as a share of the formula's: it
computes in int16, and in tiles of bfloat16."""

KERNEL_DIFFERENCE = 1e-5
"""Largest difference of a kernel's numbers from onnxruntime's, as a share of the largest."""
