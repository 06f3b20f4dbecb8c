"""The model as ONNX graphs, lowered by a dialect for each target."""
