"""The attention kernel as an operator of OpenVINO, in place of ONNX's MultiHeadAttention."""

from typing import Any, Self

from openvino import Op, PartialShape, opset13
from openvino.frontend import NodeContext
from openvino.frontend.onnx import ConversionExtension

from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.kernels import attention_kernel
from edge_medgemma.runtime.kernels.attention import AttentionKernel


class KernelAttention(Op):  # type: ignore[misc]  # OpenVINO publishes no types
    """[1, rows, 3 * hidden], query, key and value side by side, to [1, rows, hidden]."""

    def __init__(
        self, kernel: AttentionKernel, heads: int, made: list["KernelAttention"], inputs: list[Any]
    ) -> None:
        """Connect it to its input; `made` gets it, and every copy that OpenVINO makes of it."""
        super().__init__(self, inputs)
        self._kernel, self._heads, self._made = kernel, heads, made
        made.append(self)

    def validate_and_infer_types(self) -> None:
        """A third of the last axis."""
        batch, rows, width = self.get_input_partial_shape(0)
        shape = PartialShape([batch, rows, width.get_length() // 3])
        self.set_output_type(0, self.get_input_element_type(0), shape)

    def clone_with_new_inputs(self, new_inputs: list[Any]) -> Self:
        """The same operator elsewhere."""
        return type(self)(self._kernel, self._heads, self._made, new_inputs)

    def visit_attributes(self, visitor: Any) -> bool:
        """Tells it from one with other heads."""
        visitor.on_attributes({"heads": self._heads})
        return True

    def has_evaluate(self) -> bool:
        """It computes."""
        return True

    def evaluate(self, outputs: list[Any], inputs: list[Any]) -> bool:
        """Compute. OpenVINO goes on where this is False: `raise_failure` raises what failed."""
        joined, out = inputs[0].data[0], outputs[0].data[0]
        return self._kernel.attend_or_keep(joined, self._heads, out)


def kernel_conversion(kernel: AttentionKernel, made: list[KernelAttention]) -> ConversionExtension:
    """Extension by which OpenVINO reads every MultiHeadAttention as a KernelAttention.

    Args:
        kernel: computes
        made: gets the operators, for `detach`
    """

    def convert(node: NodeContext) -> list[Any]:
        parts = [node.get_input(index) for index in range(3)]
        whole = parts[0].get_node()
        if whole.get_type_name() == "VariadicSplit":  # the exported tower computes them as one
            joined = whole.input_value(0)
        else:
            joined = opset13.concat(parts, -1).output(0)
        heads = node.get_attribute("num_heads")
        size = joined.get_partial_shape()[2].get_length() // 3 // heads
        largest = attention_kernel.LARGEST_HEAD
        if size > largest:  # becomes OpenVINO's error of a graph that does not load
            raise ProviderError(f"attention heads of {size}, the kernel takes {largest}")
        return [KernelAttention(kernel, heads, made, [joined]).output(0)]

    return ConversionExtension("MultiHeadAttention", "com.microsoft", convert)


def detach(made: list[KernelAttention]) -> None:
    """Cut operators of a graph that is no longer used from what feeds them.

    An operator in Python holds itself for ever (its C++ half owns the Python half), and with it all
    that lies before it in its graph: the weights.
    """
    nothing = opset13.parameter(PartialShape([1, -1, 3])).output(0)
    while made:
        made.pop().input(0).replace_source_output(nothing)
