"""The same model by plain PyTorch: random bfloat16 weights, torch.compile, CUDA graphs.

Needs torch alone. One image through the vision tower (ve1), a prompt of 512 tokens (pp512), and
single tokens at context 0 and 8192 (tg128, tg128@d8192), each as the benchmark of edge-medgemma
names it. Blocks are compiled one by one and a token's whole pass is recorded as one CUDA graph;
sliding layers keep a window of keys, global ones all of them. Each row says how many bytes of
weights and cache it has to read and how many operations its matrices take.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GLOBAL_EVERY = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """A Gemma 3 vision-language model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    window: int
    vision_layers: int
    vision_hidden: int
    vision_intermediate: int
    vision_heads: int
    patches: int
    """Of an image, along a side"""
    pooled: int
    """Tokens of an image, along a side"""


SHAPES = {
    # config.json of google/medgemma-1.5-4b-it
    "4b": Shape(34, 2560, 10240, 8, 4, 256, 262208, 1024, 27, 1152, 4304, 16, 64, 16),
    "tiny": Shape(7, 128, 256, 4, 2, 64, 768, 24, 2, 64, 112, 4, 8, 4),
}
PATCH_VALUES = 14 * 14 * 3


@dataclass(frozen=True, slots=True)
class Workload:
    """How much is measured."""

    prompt_tokens: int
    generated_tokens: int
    deep_context: int
    repeats: int


WORKLOADS = {"4b": Workload(512, 128, 8192, 5), "tiny": Workload(16, 4, 32, 2)}


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    name: str
    median_s: float
    """Of a pass: an image, a prompt, or one token"""
    n: int
    bytes: int
    """Weights and cache that a pass reads once"""
    flop: float
    """Of a pass's linear layers, two for each multiplication"""
    first_s: float
    """Time of the first pass, compilation included"""


class RmsNorm(nn.Module):
    """x / rms(x) · (1 + w), in float32."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return (wide * (1 + self.weight.float())).to(x.dtype)


class DecoderBlock(nn.Module):
    """A layer of Gemma 3 with its own cache of keys and values."""

    def __init__(self, shape: Shape, cache_rows: int, theta: float) -> None:
        super().__init__()
        self.shape = shape
        self.theta = theta
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.norms = nn.ModuleList(RmsNorm(shape.hidden) for _ in range(4))
        self.query_norm, self.key_norm = RmsNorm(shape.head_dim), RmsNorm(shape.head_dim)
        self.query_key_value = nn.Linear(shape.hidden, queries + 2 * keys, bias=False)
        self.output = nn.Linear(queries, shape.hidden, bias=False)
        self.gate_up = nn.Linear(shape.hidden, 2 * shape.intermediate, bias=False)
        self.down = nn.Linear(shape.intermediate, shape.hidden, bias=False)
        for name in ("keys", "values"):
            cache = torch.zeros(1, shape.kv_heads, cache_rows, shape.head_dim)
            self.register_buffer(name, cache, persistent=False)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """`x` [1, S, hidden] at `position` [S]: a prompt from position 0 on, or one token."""
        x = x + self.norms[1](self._attention(self.norms[0](x), position))
        gate, up = self.gate_up(self.norms[2](x)).chunk(2, dim=-1)
        return x + self.norms[3](self.down(F.gelu(gate, approximate="tanh") * up))

    def _attention(self, x: Tensor, position: Tensor) -> Tensor:
        shape, length = self.shape, x.shape[1]
        sizes = [one * shape.head_dim for one in (shape.heads, shape.kv_heads, shape.kv_heads)]
        query, key, value = (
            one.view(1, length, -1, shape.head_dim).transpose(1, 2)
            for one in self.query_key_value(x).split(sizes, dim=-1)
        )
        query = rotated(self.query_norm(query), position, self.theta)
        key = rotated(self.key_norm(key), position, self.theta)
        rows = self.keys.shape[2]
        slot = position % rows  # a window is a ring: order does not matter after rotation
        self.keys.index_copy_(2, slot, key)
        self.values.index_copy_(2, slot, value)
        scale = shape.head_dim**-0.5
        if length > 1:
            group = shape.heads // shape.kv_heads
            key, value = (one.repeat_interleave(group, dim=1) for one in (key, value))
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
            return self.output(mixed.transpose(1, 2).reshape(1, length, -1))
        # The heads that share keys are as many queries: keys are read once.
        query = query.reshape(1, shape.kv_heads, -1, shape.head_dim)
        seen = (torch.arange(rows, device=x.device) <= position).view(1, 1, 1, rows)
        mixed = F.scaled_dot_product_attention(
            query, self.keys, self.values, attn_mask=seen, scale=scale
        )
        return self.output(mixed.reshape(1, 1, -1))


class VisionBlock(nn.Module):
    """A layer of SigLIP."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.vision_heads
        hidden = shape.vision_hidden
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.up = nn.Linear(hidden, shape.vision_intermediate)
        self.down = nn.Linear(shape.vision_intermediate, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [N, patches, hidden]."""
        count, patches, hidden = x.shape
        parts = self.query_key_value(self.norms[0](x)).view(count, patches, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.output(mixed.transpose(1, 2).reshape(count, patches, hidden))
        return x + self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))


class Decoder(nn.Module):
    """Tokens in, the next token out."""

    def __init__(self, shape: Shape, cache_rows: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        kinds = [(layer + 1) % GLOBAL_EVERY == 0 for layer in range(shape.layers)]
        self.blocks = nn.ModuleList(
            DecoderBlock(shape, cache_rows, 1e6)
            if is_global
            else DecoderBlock(shape, min(shape.window, cache_rows), 1e4)
            for is_global in kinds
        )
        self.norm = RmsNorm(shape.hidden)
        self.scale = math.sqrt(shape.hidden)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """`tokens` [1, S] at `position` [S]; the most likely next token, [1]."""
        x = self.embedding(tokens) * self.scale
        for block in self.blocks:
            x = block(x, position)
        return F.linear(self.norm(x[:, -1]), self.embedding.weight).argmax(-1)


class Vision(nn.Module):
    """Patches in, image tokens out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.patch = nn.Linear(PATCH_VALUES, shape.vision_hidden)
        self.position = nn.Parameter(torch.zeros(shape.patches**2, shape.vision_hidden))
        self.blocks = nn.ModuleList(VisionBlock(shape) for _ in range(shape.vision_layers))
        self.norm = nn.LayerNorm(shape.vision_hidden)
        self.pooled_norm = RmsNorm(shape.vision_hidden)
        self.projection = nn.Linear(shape.vision_hidden, shape.hidden, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """[N, patches, PATCH_VALUES] to [N, tokens, hidden]."""
        x = self.patch(patches) + self.position
        for block in self.blocks:
            x = block(x)
        side = self.shape.patches
        grid = self.norm(x).transpose(1, 2).reshape(len(x), -1, side, side)
        pooled = F.avg_pool2d(grid, side // self.shape.pooled).flatten(2).transpose(1, 2)
        return self.projection(self.pooled_norm(pooled))


def rotated(x: Tensor, position: Tensor, theta: float) -> Tensor:
    """Rotary position embedding of `x` [1, heads, S, head_dim]."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = position.float()[:, None] * frequency
    cosine, sine = angle.cos(), angle.sin()
    first, second = x.float().chunk(2, dim=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.cat(turned, dim=-1).to(x.dtype)


class Bench:
    """Rows of one shape on one device."""

    def __init__(self, shape: Shape, workload: Workload, device: str, is_compiled: bool) -> None:
        self._shape = shape
        self._workload = workload
        self._device = device
        self._is_compiled = is_compiled

    def vision(self) -> Row:
        model = self._ready(Vision(self._shape))
        patches = torch.randn(1, self._shape.patches**2, PATCH_VALUES)
        weights = _linear_weights(model.blocks) + model.patch.weight.numel()
        attention = (
            4 * self._shape.vision_layers * self._shape.vision_hidden * patches.shape[1] ** 2
        )
        flop = 2.0 * weights * patches.shape[1] + attention
        return self._row("ve1", lambda: model(patches), _bytes(model), flop)

    def prompt(self) -> Row:
        count = self._workload.prompt_tokens
        model = self._ready(Decoder(self._shape, count))
        tokens = torch.randint(self._shape.vocabulary, (1, count))
        position = torch.arange(count)
        flop = 2.0 * _linear_weights(model.blocks) * count
        return self._row(f"pp{count}", lambda: model(tokens, position), _bytes(model), flop)

    def tokens(self, context: int) -> Row:
        """Single tokens after `context` others, whose keys are zeros: time does not depend on them."""
        count = self._workload.generated_tokens
        model = self._ready(Decoder(self._shape, context + count))
        token, position = torch.zeros(1, 1, dtype=torch.int64), torch.full((1,), context)

        def step() -> None:
            token.copy_(model(token, position)[:, None])

        run = self._recorded(step) if self._device == "cuda" else step

        def generate() -> None:
            position.fill_(context)
            for _ in range(count):
                run()
                position.add_(1)

        caches = sum(one.nbytes for one in model.buffers())
        name = f"tg{count}" + (f"@d{context}" if context else "")
        flop = 2.0 * (_linear_weights(model.blocks) + model.embedding.weight.numel())
        return self._row(name, generate, _bytes(model) + caches, flop, count)

    def _ready(self, model: nn.Module) -> nn.Module:
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.02)
        if self._is_compiled:
            for block in model.blocks:
                block.compile()
        return model.eval()

    def _recorded(self, step: Callable[[], None]) -> Callable[[], None]:
        """The step as a CUDA graph, after the passes that compile it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay

    def _row(
        self, name: str, action: Callable[[], object], read: int, flop: float, passes: int = 1
    ) -> Row:
        first_s = self._seconds(action)
        times = [self._seconds(action) / passes for _ in range(self._workload.repeats)]
        return Row(name, statistics.median(times), len(times), read, flop, first_s)

    def _seconds(self, action: Callable[[], object]) -> float:
        self._wait()
        start_s = time.perf_counter()
        action()
        self._wait()
        return time.perf_counter() - start_s

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


def _linear_weights(modules: nn.Module) -> int:
    return sum(one.weight.numel() for one in modules.modules() if isinstance(one, nn.Linear))


def _bytes(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every row, and write after each what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--no-compile", action="store_true")
    given = parser.parse_args(arguments)
    found = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
        "shape": given.shape,
        "is_compiled": not given.no_compile,
    }
    bench = Bench(SHAPES[given.shape], WORKLOADS[given.shape], given.device, not given.no_compile)
    rows: list[dict[str, object]] = []
    torch.set_default_dtype(torch.bfloat16)
    with torch.inference_mode(), torch.device(given.device):
        for measure in (
            lambda: bench.tokens(0),
            bench.prompt,
            bench.vision,
            lambda: bench.tokens(WORKLOADS[given.shape].deep_context),
        ):
            rows.append(asdict(measure()))
            print(rows[-1], flush=True)
            given.json.write_text(json.dumps({**found, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
