"""Transfer syntaxes: which need no codec, and what each is called."""

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

_NATIVE = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}
"""Those whose pixels stand in the file as they are; a deflated file is inflated before (PS3.5 A.5)."""

_NEWER_NAMES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
"""Names of PS3.6 annex A that pydicom 3 does not know."""


def is_native(syntax: str) -> bool:
    """Whether no codec is needed. One that nobody knows counts as compressed."""
    return syntax in _NATIVE


def syntax_name(syntax: str) -> str:
    """The name of a transfer syntax in the standard's list, never text from the file."""
    name = _NEWER_NAMES.get(syntax) or str(UID(syntax).name)
    return name if name != syntax else "not in the standard"
