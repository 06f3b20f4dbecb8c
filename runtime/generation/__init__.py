"""An engine directory in, token ids and logits out."""
