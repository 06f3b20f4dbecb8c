"""Which token stands in which row of the key-value caches; the buffers are the session's."""

from edge_medgemma.runtime.generation.masks import NO_TOKENS, TokenMeta


class LayerGroupCache:
    """The rows of one cache geometry: all global layers share one lane, all local ones another."""

    def __init__(self, window: int | None) -> None:
        """`window` is `sliding_window` for local layers, None for global ones."""
        self.window = window
        self.rows: TokenMeta = NO_TOKENS

    @property
    def used(self) -> int:
        """Rows in use."""
        return len(self.rows)

    def append(self, rows: TokenMeta) -> None:
        """Take the rows after the last used one."""
        self.rows = self.rows + rows

    def truncate(self, used: int) -> None:
        """Forget all rows from `used` on."""
        self.rows = self.rows[:used]

    def num_evictable(self, position: int) -> int:
        """How many leading rows no token from `position` on can see."""
        if self.window is None:
            return 0
        visible = self.rows.positions > position - self.window
        return int(visible.argmax()) if visible.any() else self.used

    def drop(self, count: int) -> None:
        """Forget the first `count` rows; the others move to the front."""
        self.rows = self.rows[count:]
