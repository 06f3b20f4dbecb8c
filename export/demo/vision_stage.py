"""First stage: the vision tower and the projector learn to see, without a language model.

Throw-away heads read the findings off the tower's patches, off the projected tokens, and off each
slice's tokens laid side by side, so that left and right can be compared.
"""

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d, smooth_l1_loss
from transformers import Gemma3ForConditionalGeneration

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.statistics.metrics import area_under_curve
from edge_medgemma.export.demo.batches import draw_ahead, draw_batch
from edge_medgemma.export.demo.images import CELLS, SliceTargets
from edge_medgemma.export.demo.network import (
    HIDDEN_SIZE,
    TOKENS_PER_IMAGE,
    VISION_HIDDEN_SIZE,
)
from edge_medgemma.export.demo.schedule import Schedule

PHANTOMS_PER_STEP = 4
REPORT_STEPS = 100
POSITIVE_WEIGHTS = (5.0, 5.0, 10.0)
"""A patch that shows a finding is rare."""
PATCH_WEIGHT = 2.0
SLICE_HEAD_SCALE = 1 / 16
"""That head adds up 2048 numbers: at full size its first steps shake the tower."""
FINDING_WEIGHTS = (0.7, 1.0, 1.5)
"""The harder to see, the more of the patches' loss."""


class _Heads(nn.Module):  # type: ignore[misc] # torch is untyped here
    def __init__(self) -> None:
        super().__init__()
        findings = len(FINDINGS)
        self.patch = nn.Linear(VISION_HIDDEN_SIZE, findings)
        self.token = nn.Linear(HIDDEN_SIZE, findings)
        self.slice = nn.Sequential(
            nn.LayerNorm(HIDDEN_SIZE),
            nn.Flatten(1),
            nn.Linear(HIDDEN_SIZE * TOKENS_PER_IMAGE, findings + 1),
        )
        """Findings of the slice, and the shift of its midline."""


def encode(network: Gemma3ForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Patches [N, patches, vision hidden] and projected tokens [N, tokens, hidden] of images."""
    patches = network.model.vision_tower(pixel_values=pixels).last_hidden_state
    return patches, network.model.multi_modal_projector(patches)


def train_vision(
    network: Gemma3ForConditionalGeneration,
    schedule: Schedule,
    seeds: range,
    validation_seeds: Sequence[int],
) -> None:
    """Train tower and projector in place on slices of phantoms with consecutive `seeds`."""
    heads = _Heads()
    trained = [
        *network.model.vision_tower.parameters(),
        *network.model.multi_modal_projector.parameters(),
        *heads.parameters(),
    ]
    optimiser = torch.optim.AdamW(trained, weight_decay=0.05, betas=(0.9, 0.98))
    held_out = draw_batch(validation_seeds)
    start = time.perf_counter()
    for step, (images, targets) in enumerate(
        draw_ahead(draw_batch, _steps(seeds, schedule.steps)), 1
    ):
        schedule.apply(optimiser, step)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = _loss(network, heads, images, targets)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % REPORT_STEPS == 0 or step == schedule.steps:
            with torch.no_grad():
                held_out_loss, logits = _loss(network, heads, *held_out)
            areas = [
                area_under_curve(logits[:, i].numpy(), held_out[1].slices[:, i].numpy() > 0)
                for i in range(len(FINDINGS))
            ]
            print(
                f"vision {step}/{schedule.steps} {time.perf_counter() - start:.0f} s "
                f"loss {loss.item():.3f} held out {held_out_loss.item():.3f} AUC per slice "
                + " ".join(
                    f"{name} {area:.3f}" for name, area in zip(FINDINGS, areas, strict=True)
                ),
                flush=True,
            )


def _steps(seeds: range, steps: int) -> list[range]:
    """The seeds of every step, none of them twice."""
    needed = seeds[: steps * PHANTOMS_PER_STEP]
    return [needed[i : i + PHANTOMS_PER_STEP] for i in range(0, len(needed), PHANTOMS_PER_STEP)]


def _loss(
    network: Gemma3ForConditionalGeneration, heads: _Heads, images: Tensor, targets: SliceTargets
) -> tuple[Tensor, Tensor]:
    """The loss and the slice logits [N, findings]."""
    patches, tokens = encode(network, images)
    side = math.isqrt(TOKENS_PER_IMAGE)
    shape = (len(images), len(FINDINGS))
    patch_logits = heads.patch(patches).transpose(1, 2).reshape(*shape, CELLS, CELLS)
    token_logits = heads.token(tokens).transpose(1, 2).reshape(*shape, side, side)
    slice_logits, shift_cm = (heads.slice(tokens) * SLICE_HEAD_SCALE).split([len(FINDINGS), 1], 1)
    patch_loss = binary_cross_entropy_with_logits(
        patch_logits,
        targets.patches,
        weight=torch.tensor(FINDING_WEIGHTS).view(3, 1, 1),
        pos_weight=torch.tensor(POSITIVE_WEIGHTS).view(3, 1, 1),
    )
    token_loss = binary_cross_entropy_with_logits(
        token_logits, max_pool2d(targets.patches, CELLS // side), pos_weight=torch.tensor(3.0)
    )
    slice_loss = binary_cross_entropy_with_logits(slice_logits, targets.slices)
    shift_loss = smooth_l1_loss(shift_cm[:, 0], targets.shift_cm)
    loss = PATCH_WEIGHT * patch_loss + token_loss + slice_loss + shift_loss
    return loss, slice_logits
