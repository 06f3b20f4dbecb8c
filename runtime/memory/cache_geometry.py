"""Sizes of prefill chunks and key-value caches: what is planned for and what is then reserved."""

MAX_PREFILL_ROWS = 288
"""Longer text is prefilled in several chunks. A slice of 256 image tokens and its label fits: more
rows gain nothing on a CPU, and each takes 4 bytes of scores for every head and earlier token."""

LOCAL_SLACK_ROWS = 320
"""Rows of the local caches beyond the window: their compaction is paid once per so many tokens, and
rows that no token sees any more cost as much as others until then. One slice fits."""

GLOBAL_GROWTH_ROWS = 2048
"""Of the global caches beyond what is expected: room for questions, and they grow by as many."""
