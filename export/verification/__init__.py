"""An engine held against transformers, which prepares prompts and pictures by itself."""
