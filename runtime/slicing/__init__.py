"""A folder of files in, ordered stacks of model-ready slices out."""
