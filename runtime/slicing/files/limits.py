"""Bounds checked before anything is allocated, so that a hostile file costs little."""

MAX_FILES = 20_000
"""Files in one scan folder; the largest routine studies (4D cardiac CT) stay below."""

MAX_FILE_BYTES = 2 * 1024**3
"""One file; DICOM's 32-bit element length allows no larger single pixel element than 4 GiB."""

MAX_INFLATED_BYTES = 128 * 1024**2
"""A deflated data set after inflation, headers and pixels together."""

MAX_UNPACKED_BYTES = 4 * 1024**3
"""All files of all archives of a scan, and what refused ones cost; a 4D study of 5,000 slices takes 2.6 GB."""

MAX_INFLATE_RATIO = 200
"""Unpacked to packed size of an archive; scans reach 2 to 10, masks of mostly nothing 100."""

MAX_ROWS_COLUMNS = 8192
"""Rows or columns of one image; the largest digital radiographs are below 6000."""

MAX_PIXELS = 32 * 1024**2
"""Pixels of one image; the largest mammograms have 26 million."""

MAX_HEADER_BYTES = 6 * 1024**2
"""Everything before the pixels; a frame of an enhanced CT or MR takes about 2 kB of it, and the
worst that fits takes 4 s to parse."""

MAX_SEQUENCE_ITEMS = 100_000
"""Items of all sequences before the pixels, for each costs a kilobyte; a frame has 14 to 20."""

MAX_HEADER_READS = 400_000
"""Reads of a parser, of which each element takes one or two; more never belong to elements that say
something and fit MAX_HEADER_BYTES. Counted rather than timed: a busy device reads the same files."""

MAX_FRAMES = 4096
"""Frames of one multi-frame object."""

MAX_VOLUME_BYTES = 512 * 1024**2
"""Decoded float32 slices held at once: 512 of 512 × 512."""

MAX_CODEC_BYTES = 10**9
"""Address space of a process that decodes compressed slices, its libraries included."""

MAX_NIFTI_BYTES = 1024**3
"""Stored values of one time point: 2,000 slices of 512 × 512, inflated in about 5 s."""

MAX_GUNZIPPED_BYTES = 3 * 1024**3
"""Inflated of one NIfTI in one reading, also what is skipped: later time points up to the checksum."""

MAX_BYTES_AT_ONCE = 64 * 1024**2
"""Float32 slices of one file decoded together: 64 of 512 × 512."""

MAX_FOLDERS = 100_000
"""Folders in one scan folder, empty ones too; five for each file that it may hold."""
