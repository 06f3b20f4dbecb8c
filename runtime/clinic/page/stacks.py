"""The stacks of every study that is being looked at, made in one thread beside the server's."""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from edge_medgemma.runtime.clinic.page.image_cache import ImageCache
from edge_medgemma.runtime.clinic.page.slices import (
    CHUNK_SLICES,
    Stack,
    list_stacks,
    render_chunk,
    value_range,
)
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.slicing.pixels.codec_pool import CodecPool

POOL_IDLE_S = 60.0
"""The codec process, 100 MB, ends when no slice was rendered for so long."""

_MAX_LISTINGS = 8

Result = TypeVar("Result")


class StackStore:
    """Listings in memory, images in the cache; requests for one chunk are answered by one rendering."""

    def __init__(self, state: StateFolder, cache: ImageCache) -> None:
        """Stacks of the studies in `state.spool`."""
        self._state = state
        self._cache = cache
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="slices")
        self._listings: OrderedDict[tuple[str, str], tuple[Stack, ...]] = OrderedDict()
        self._limits: dict[str, tuple[float, float]] = {}
        self._open_pools = contextlib.ExitStack()
        self._pool: CodecPool | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._running: dict[tuple[str, ...], asyncio.Future[dict[int, bytes]]] = {}

    def close(self) -> None:
        """Wait for the rendering that is under way; start no other."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._thread.submit(self._close_pool)
        self._thread.shutdown(wait=True)

    async def stacks(self, study_key: str) -> tuple[Stack, ...]:
        """Every series of a study, as its folder is now.

        Raises:
            ScanError: nothing in it can be read, or nothing is there.
        """
        return await self._in_thread(lambda: self._listed(study_key))

    async def image(self, study_key: str, tag: str, window: str, index: int) -> bytes | None:
        """A slice as JPEG; None where there is no such slice or it cannot be decoded.

        Raises:
            ScanError: nothing in the study's folder can be read.
        """
        name = _file_name(tag, window, index)
        found = await asyncio.to_thread(self._cache.read, study_key, name)
        if found is not None:
            return found
        job = (study_key, tag, window, str(index // CHUNK_SLICES))
        if job not in self._running:
            task = asyncio.ensure_future(
                self._in_thread(lambda: self._render(study_key, tag, window, index))
            )
            self._running[job] = task
            task.add_done_callback(lambda _: self._running.pop(job, None))
        images = await asyncio.shield(self._running[job])
        self._let_pool_idle()
        return images.get(index)

    def _render(self, study_key: str, tag: str, window: str, index: int) -> dict[int, bytes]:
        stack = next((one for one in self._listed(study_key) if one.tag == tag), None)
        if stack is None or not 0 <= index < stack.series.shape[0]:
            return {}
        shown = stack.window(window)
        if shown is None:
            return {}
        if tag not in self._limits:
            self._limits[tag] = value_range(stack)
        if self._pool is None:
            self._pool = self._open_pools.enter_context(CodecPool(1))
        images = dict(render_chunk(stack, shown, index, self._limits[tag], self._pool))
        for place, data in images.items():
            self._cache.write(study_key, _file_name(tag, window, place), data)
        return images

    def _let_pool_idle(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(POOL_IDLE_S, self._thread.submit, self._close_pool)

    def _close_pool(self) -> None:
        self._open_pools.close()
        self._pool = None

    def _listed(self, study_key: str) -> tuple[Stack, ...]:
        folder = self._state.spool / study_key
        key = study_key, _fingerprint(folder)
        if key in self._listings:
            self._listings.move_to_end(key)
            return self._listings[key]
        self._listings[key] = list_stacks(folder)
        while len(self._listings) > _MAX_LISTINGS:
            self._listings.popitem(last=False)
        return self._listings[key]

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _fingerprint(folder: Path) -> str:
    """Changes whenever a file comes; names in the spool are hashes of what they hold."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
    return digest.hexdigest()


def _file_name(tag: str, window: str, index: int) -> str:
    return f"{tag}/{window}/{index}.jpg"
