"""Bounds checked before anything is allocated, so that a hostile file costs little."""

MAX_FILES = 20_000
"""Files in one scan folder; the largest routine studies (4D cardiac CT) stay below."""

MAX_FILE_BYTES = 2 * 1024**3
"""One file; DICOM's 32-bit element length allows no larger single pixel element than 4 GiB."""

MAX_INFLATED_BYTES = 128 * 1024**2
"""A deflated data set after inflation, headers and pixels together."""

MAX_ROWS_COLUMNS = 8192
"""Rows or columns of one image; the largest digital radiographs are below 6000."""

MAX_FRAMES = 4096
"""Frames of one multi-frame object."""

MAX_VOLUME_BYTES = 2 * 1024**3
"""Decoded float32 slices held at once."""

MAX_CODEC_BYTES = 2 * 1024**3
"""Address space of the process that decodes compressed slices, its libraries included."""

MAX_BYTES_AT_ONCE = 64 * 1024**2
"""Float32 slices of one file decoded together: 64 of 512 × 512."""
