"""Names of files that are no scan of a kind that is read, and what to do with each."""

SNIFF_BYTES = 512
"""Start of a file by which it is told what it is."""

ISO_MAGIC_OFFSET = 32769
"""Offset of `CD001` in the image of a disc: the first volume descriptor (ECMA-119 section 8.1)."""

_UNPACK = "; unpack it first"
_CONVERT = "; give the DICOM images, or convert it to NIfTI"
_NO_SCAN = ", not a scan; give the DICOM images"

_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xfd7zXZ\0", "xz archive" + _UNPACK),
    (0, b"BZh", "bzip2 archive" + _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "7-Zip archive" + _UNPACK),
    (0, b"Rar!\x1a\x07", "RAR archive" + _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "zstd archive" + _UNPACK),
    (0, b"\x04\x22\x4d\x18", "LZ4 archive" + _UNPACK),
    (0, b"\x5d\0\0", "LZMA archive" + _UNPACK),
    (0, b"LZIP", "lzip archive" + _UNPACK),
    (0, b"\x1f\x9d", "compress (.Z) archive" + _UNPACK),
    (0, b"MSCF", "cabinet archive" + _UNPACK),
    (0, b"PK\x07\x08", "zip archive of several parts" + _UNPACK),
    (0, b"!<arch>\n", "ar archive" + _UNPACK),
    (0, b"070701", "cpio archive" + _UNPACK),
    (0, b"NRRD000", "NRRD volume" + _CONVERT),
    (0, b"ObjectType", "MetaImage volume (.mha, .mhd)" + _CONVERT),
    (0, b"NDims", "MetaImage volume (.mha, .mhd)" + _CONVERT),
    (0, b"CDF\x01", "MINC or other netCDF volume" + _CONVERT),
    (0, b"CDF\x02", "MINC or other netCDF volume" + _CONVERT),
    (0, b"\x89HDF\r\n\x1a\n", "MINC 2 or other HDF5 volume" + _CONVERT),
    (0, b"# === DATA DESCRIPTION FILE", "Philips PAR header" + _CONVERT),
    (0, b"!INTERFILE", "Interfile header" + _CONVERT),
    (0, b"# vtk DataFile", "VTK volume" + _CONVERT),
    (0, b"\x93NUMPY", "NumPy array" + _CONVERT),
    (0, b"MATLAB 5.0", "MATLAB file" + _CONVERT),
    (0, b"%PDF", "PDF document" + _NO_SCAN),
    (0, b"\x89PNG", "PNG or JPEG image" + _NO_SCAN),
    (0, b"\xff\xd8\xff", "PNG or JPEG image" + _NO_SCAN),
    (0, b"GIF8", "GIF image" + _NO_SCAN),
    (0, b"BM", "BMP image" + _NO_SCAN),
    (0, b"II*\0", "TIFF image" + _NO_SCAN),
    (0, b"MM\0*", "TIFF image" + _NO_SCAN),
    (8, b"WEBP", "WebP image" + _NO_SCAN),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000 image" + _NO_SCAN),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000 image" + _NO_SCAN),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL image" + _NO_SCAN),
    (0, b"\xff\x0a", "JPEG XL image" + _NO_SCAN),
    (4, b"ftyp", "video or HEIF image" + _NO_SCAN),
    (8, b"AVI ", "video" + _NO_SCAN),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Office document or thumbnails" + _NO_SCAN),
    (0, b"{\\rtf", "RTF document" + _NO_SCAN),
    (0, b"<?xml", "XML document" + _NO_SCAN),
    (0, b"<!DOCTYPE", "HTML document" + _NO_SCAN),
    (0, b"<!doctype", "HTML document" + _NO_SCAN),
    (0, b"<html", "HTML document" + _NO_SCAN),
    (0, b"SQLite format 3", "SQLite database" + _NO_SCAN),
    (0, b"MZ", "Windows program" + _NO_SCAN),
    (0, b"\x7fELF", "program" + _NO_SCAN),
    (0, b"PAR1", "Parquet table" + _NO_SCAN),
)  # fmt: skip
"""Offset, bytes there, and what such a file is."""

NIFTI_PAIR = "unsupported: NIfTI pair (.hdr and .img); convert it to one file (.nii)"

UNKNOWN = "neither DICOM nor NIfTI by its content"

_ANALYZE_HEADER_BYTES = 348


def other_kind(start: bytes) -> str:
    """What a file is that gives no slice, by its first SNIFF_BYTES, and what to do."""
    for offset, magic, name in _MAGICS:
        if start[offset:].startswith(magic):
            return name
    if _ANALYZE_HEADER_BYTES in (int.from_bytes(start[:4], order) for order in ("little", "big")):
        return "Analyze 7.5 header (.hdr)" + _CONVERT
    return UNKNOWN


def is_nifti_pair(start: bytes) -> bool:
    """Whether a file is the header of a NIfTI of two files: its magic is not that of one file."""
    return start[344:348] == b"ni1\0" or start[4:8] == b"ni2\0"
