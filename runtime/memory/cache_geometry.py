"""Sizes of prefill chunks and key-value caches: what is planned for and what is then reserved."""

MAX_PREFILL_TOKENS = 288
"""Tokens of one prefill chunk; longer text takes several. A slice of 256 image tokens and its label
fits: more gain nothing on a CPU, and each takes 4 bytes of scores for every head and earlier token."""

LOCAL_SLACK_SLOTS = 320
"""Slots of the local caches beyond the window: their compaction is paid once per so many tokens,
and slots that no token attends to cost as much as others until then. One slice fits."""

GLOBAL_GROWTH_SLOTS = 2048
"""Slots of the global caches beyond what is expected: for questions, and the caches grow by as many."""
