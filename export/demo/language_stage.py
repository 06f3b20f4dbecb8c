"""Second stage: the language model learns to answer, on what the trained tower sees.

The tower is frozen, so every scan is encoded once; each step then takes another number of slices
from another place, which makes one scan many.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import Gemma3ForConditionalGeneration

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.drawing import draw_blank, draw_phantom
from edge_medgemma.calibration.statistics.metrics import area_under_curve
from edge_medgemma.export.demo.batches import draw_ahead
from edge_medgemma.export.demo.dialogue import IGNORED, Dialogue, Layout
from edge_medgemma.export.demo.images import pixel_values
from edge_medgemma.export.demo.network import GLOBAL_LAYER, HIDDEN_SIZE
from edge_medgemma.export.demo.schedule import Schedule
from edge_medgemma.export.demo.vision_stage import encode

SCANS_PER_STEP = 8
FEWEST_SLICES, MOST_SLICES = 4, 24
EARLY_SLICES = 12
LATE_PHASE = 0.45
"""Until this share of the steps, scans have at most EARLY_SLICES slices, which is quicker."""
REPORT_STEPS = 50
REPORT_SCANS = 100
SPEAK_EVERY = 3
"""Every so many steps a question is asked that wants words."""


@dataclass(frozen=True, slots=True)
class EncodedScan:
    """A phantom as the language model gets it."""

    features: Tensor
    """[slices, tokens, hidden]"""
    shown: tuple[frozenset[str], ...]
    """Per slice: the findings that it shows."""
    findings: frozenset[str]


@torch.no_grad()  # type: ignore[untyped-decorator]
def encode_scans(
    network: Gemma3ForConditionalGeneration, seeds: Sequence[int]
) -> list[EncodedScan]:
    """Draw and encode the phantoms of these seeds, at most MOST_SLICES slices of each."""
    network.eval()
    scans = []
    start = time.perf_counter()
    for pixels, shown in draw_ahead(_draw_scan, seeds):
        _, tokens = encode(network, pixels)
        scans.append(EncodedScan(tokens, shown, frozenset[str]().union(*shown)))
        if len(scans) % REPORT_SCANS == 0:
            elapsed_s = time.perf_counter() - start
            print(f"encoded {len(scans)}/{len(seeds)} {elapsed_s:.0f} s", flush=True)
    return scans


def _draw_scan(seed: int) -> tuple[Tensor, tuple[frozenset[str], ...]]:
    """Pixel values of a phantom's slices, and the findings that each shows."""
    phantom = draw_phantom(seed, count=MOST_SLICES)
    shown = tuple(
        frozenset(code for code in phantom.findings if i in phantom.finding_slices[code])
        for i in range(len(phantom.hounsfield))
    )
    return pixel_values(phantom.hounsfield), shown


def encode_blanks(network: Gemma3ForConditionalGeneration, count: int) -> list[EncodedScan]:
    """Scans of air, on which every answer is no."""
    with torch.no_grad():
        _, tokens = encode(network, pixel_values(draw_blank(slices=1).hounsfield))
    features = tokens.expand(MOST_SLICES, -1, -1)
    nothing = frozenset[str]()
    return [EncodedScan(features, (nothing,) * MOST_SLICES, nothing)] * count


def train_language(
    network: Gemma3ForConditionalGeneration,
    dialogue: Dialogue,
    schedule: Schedule,
    scans: Sequence[EncodedScan],
    held_out: Sequence[EncodedScan],
    rng: np.random.Generator,
) -> None:
    """Train the language model in place.

    A throw-away head reads off every slice's label what the slice shows, ahead of the global
    layer: so the labels sum up their slices, and the questions need only look at the labels.
    """
    slice_head = nn.Linear(HIDDEN_SIZE, len(FINDINGS))
    trained = [*network.model.language_model.parameters(), *slice_head.parameters()]
    optimiser = torch.optim.AdamW(trained, weight_decay=0.05, betas=(0.9, 0.98))
    start, running = time.perf_counter(), []
    for step in range(1, schedule.steps + 1):
        network.train()
        schedule.apply(optimiser, step)
        spoken = dialogue.spoken_question(rng) if step % SPEAK_EVERY == 0 else None
        chosen = rng.choice(len(scans), SCANS_PER_STEP, replace=False)
        most = min(len(scans[index].shown) for index in chosen)
        if step < LATE_PHASE * schedule.steps:
            most = min(most, EARLY_SLICES)
        slices = int(rng.integers(FEWEST_SLICES, most + 1))
        layout = dialogue.layout(slices, spoken)
        features, findings, shown = [], [], []
        for index in chosen:
            scan = scans[index]
            picked = _pick(len(scan.shown), slices, rng)
            features.append(scan.features[picked])
            shown.append([scan.shown[i] for i in picked])
            findings.append(frozenset[str]().union(*shown[-1]))
        ids, labels = dialogue.fill(layout, findings)
        asked = torch.nonzero((labels != IGNORED).any(0))[:, 0]
        with torch.autocast("cpu", torch.bfloat16):
            logits, states = run_sequence(network, layout, ids, torch.stack(features), asked)
            slice_logits = slice_head(states)
        loss = cross_entropy(logits.float().flatten(0, 1), labels[:, asked].flatten())
        loss = loss + binary_cross_entropy_with_logits(slice_logits.float(), _targets(shown))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        running.append(float(loss.detach()))
        if step % REPORT_STEPS == 0 or step == schedule.steps:
            margins, present = score_scans(network, dialogue, held_out)
            areas = [area_under_curve(margins[:, i], present[:, i]) for i in range(len(FINDINGS))]
            print(
                f"language {step}/{schedule.steps} {time.perf_counter() - start:.0f} s "
                f"loss {np.mean(running[-REPORT_STEPS:]):.3f} AUC per scan "
                + " ".join(
                    f"{name} {area:.3f}" for name, area in zip(FINDINGS, areas, strict=True)
                ),
                flush=True,
            )


def run_sequence(
    network: Gemma3ForConditionalGeneration,
    layout: Layout,
    ids: Tensor,
    features: Tensor,
    rows: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run sequences [B, S] whose images have these features.

    Returns:
        Logits [B, rows, vocabulary], and the states [B, slices, hidden] that enter the global
        layer where each slice's label ends.
    """
    model = network.model.language_model
    embeddings = model.embed_tokens(ids)
    embeddings = embeddings.index_copy(1, layout.image_rows, features.flatten(1, 2))
    output = model(
        inputs_embeds=embeddings,
        attention_mask=layout.masks,
        position_ids=layout.position_ids.expand(len(ids), -1),
        use_cache=False,
        output_hidden_states=True,
    )
    logits = network.lm_head(output.last_hidden_state[:, rows])
    return logits, output.hidden_states[GLOBAL_LAYER][:, layout.label_rows]


@torch.no_grad()  # type: ignore[untyped-decorator]
def score_scans(
    network: Gemma3ForConditionalGeneration, dialogue: Dialogue, scans: Sequence[EncodedScan]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Log-odds of yes against no [scans, findings], and which findings are present."""
    network.eval()
    margins = []
    for scan in scans:
        layout = dialogue.layout(len(scan.shown))
        ids, _ = dialogue.fill(layout, [scan.findings])
        rows = torch.tensor([answer.start - 1 for answer in layout.answers])
        logits = run_sequence(network, layout, ids, scan.features[None], rows)[0][0]
        margins.append((logits[:, dialogue.yes] - logits[:, dialogue.no]).numpy())
    present = np.array([[code in scan.findings for code in FINDINGS] for scan in scans])
    return np.array(margins), present


def _targets(shown: Sequence[Sequence[frozenset[str]]]) -> Tensor:
    """[scans, slices, findings]: 1 where the slice shows the finding."""
    return torch.tensor(
        [[[float(code in one) for code in FINDINGS] for one in slices] for slices in shown]
    )


def _pick(available: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """Ascending slices, evenly spread with jitter over a random stretch or the whole scan."""
    return sorted(int(i) for i in rng.choice(available, wanted, replace=False))
