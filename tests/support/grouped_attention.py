"""One GroupQueryAttention node as decoder graphs have it: drawn inputs, its output, and the formula."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from edge_medgemma.runtime.generation.masks import HIDDEN

KINDS = ("key", "value")

SPARE_ROWS = 21


@dataclass(frozen=True)
class Case:
    """`rows` queries, the newest of `total` keys."""

    rows: int
    total: int
    heads: int = 4
    kv_heads: int = 2
    size: int = 32
    is_int8: bool = False
    has_sink: bool = False
    attributes: tuple[tuple[str, int | float | str], ...] = ()


def drawn(case: Case, spare: int = SPARE_ROWS) -> dict[str, np.ndarray]:
    """Inputs of the node; caches have `spare` rows behind the last."""
    draw = np.random.default_rng(case.total).standard_normal
    width, kv_width = case.heads * case.size, case.kv_heads * case.size
    capacity = (1, case.kv_heads, case.total + spare, case.size)
    seen = np.tri(case.rows, case.total, case.total - case.rows, dtype=np.bool_)
    arrays = {
        "query": draw((1, case.rows, width), np.float32),
        "key": draw((1, case.rows, kv_width), np.float32),
        "value": draw((1, case.rows, kv_width), np.float32),
        "past_key": draw(capacity, np.float32),
        "past_value": draw(capacity, np.float32),
        "last": np.array([case.total - 1], np.int32),
        "total": np.array(case.total, np.int32),
        "mask": np.where(seen, np.float32(0), HIDDEN)[None, None],
    }
    if case.is_int8:
        for kind in KINDS:
            steps = np.random.default_rng(case.size).uniform(1, 2, kv_width).astype(np.float32) / 40
            past = arrays[f"past_{kind}"] / steps.reshape(case.kv_heads, 1, case.size)
            arrays[f"past_{kind}"] = np.clip(np.rint(past), -127, 127).astype(np.int8)
            arrays[f"{kind}_step"] = steps
    if case.has_sink:
        arrays["sink"] = draw(case.heads, np.float32)
    return arrays


def model_of(case: Case, arrays: dict[str, np.ndarray]) -> bytes:
    helper = onnx.helper
    steps = [f"{kind}_step" for kind in KINDS if case.is_int8]
    inputs = [*list(arrays)[:7], "", "", "", "mask", "sink" if case.has_sink else "", *steps]
    attributes = {
        "num_heads": case.heads,
        "kv_num_heads": case.kv_heads,
        "causal": 0,
        "local_window_size": -1,
        **dict(case.attributes),
    }
    if case.is_int8:
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        attributes["kv_cache_bit_width"] = 8
    outputs = ["out", "present_key", "present_value"]
    node = helper.make_node(
        "GroupQueryAttention", inputs, outputs, domain="com.microsoft", **attributes
    )

    def value(name, array):
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(name, kind, [None] * array.ndim)

    ends = [
        value(name, arrays[like])
        for name, like in zip(outputs, ("query", "past_key", "past_value"), strict=True)
    ]
    graph = helper.make_graph([node], "one", [value(*one) for one in arrays.items()], ends)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def attended(case, arrays, library, *, threads=2, in_place=True):
    """The output [rows, heads * size]; the caches among `arrays` are written if `in_place`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # each tensor then has ends that a sanitizer sees
    if library:
        options.register_custom_ops_library(library)
    model = model_of(case, arrays)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if not in_place:
        return session.run(["out"], arrays)[0][0]
    binding = session.io_binding()
    for name, array in arrays.items():
        bound = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        binding.bind_ortvalue_input(name, bound)
        if name.startswith("past"):
            binding.bind_ortvalue_output(name.replace("past", "present"), bound)
    binding.bind_output("out", "cpu")
    session.run_with_iobinding(binding)
    return binding.get_outputs()[-1].numpy()[0]


def check_that_it_is_onnxruntimes(case: Case, library: str) -> None:
    """With the library, output and caches are onnxruntime's, to the last bit."""
    ours, own = drawn(case), drawn(case)
    given = attended(case, ours, library)
    np.testing.assert_array_equal(given, attended(case, own, None))
    for name, array in own.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def reference(case: Case, arrays: dict[str, np.ndarray], scale: float | None = None) -> np.ndarray:
    """The formula in float64, from caches that hold the new rows."""
    shared = case.heads // case.kv_heads
    query = arrays["query"][0].reshape(case.rows, case.heads, case.size).transpose(1, 0, 2)
    key, value = (cached(case, arrays, kind).repeat(shared, axis=0) for kind in KINDS)
    scores = query @ key.transpose(0, 2, 1) * (scale or case.size**-0.5) + arrays["mask"][0]
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    return (weights @ value).transpose(1, 0, 2).reshape(case.rows, -1)


def cached(case: Case, arrays: dict[str, np.ndarray], kind: str) -> np.ndarray:
    """Keys or values [kv_heads, total, size] that a cache holds."""
    rows = arrays[f"past_{kind}"][0, :, : case.total].astype(np.float64)
    if case.is_int8:
        rows *= arrays[f"{kind}_step"].reshape(case.kv_heads, 1, case.size)
    return rows
