"""What the node lets senders propose: every kind of object, in every encoding that stands by itself."""

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from edge_medgemma.runtime.clinic.arrivals.association_server import SharedContexts

_FIRST = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Explicit and Implicit VR Little Endian: the first of these that a sender offers with others is taken."""

_POINTERS = (
    "1.2.840.10008.1.2.4.94",
    "1.2.840.10008.1.2.4.95",  # JPIP: the pixels stay with the sender
    "1.2.840.10008.1.2.4.204",
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.7.",  # SMPTE ST 2110: they come over another connection
)
"""Encodings whose pixels are somewhere else; refused, so that the sender chooses another."""

STORAGE_CLASSES = frozenset(
    str(context.abstract_syntax) for context in AllStoragePresentationContexts
)
"""Standard storage SOP classes; private ones are refused."""


def supported_contexts() -> SharedContexts:
    """Presentation contexts of the node.

    Of storage commitment only reports about what this box has sent are taken (the peer is SCP): a
    scanner that is told of a commitment deletes its images.
    """
    syntaxes = [*_FIRST, *(one for one in ALL_TRANSFER_SYNTAXES if one not in _FIRST)]
    kept = [one for one in syntaxes if not one.startswith(_POINTERS)]
    commitment = build_context(StorageCommitmentPushModel, list(_FIRST))
    commitment.scu_role, commitment.scp_role = False, True
    return SharedContexts(
        [
            build_context(Verification, list(_FIRST)),
            commitment,
            *(build_context(one, kept) for one in sorted(STORAGE_CLASSES)),
        ]
    )


def wants_storage(contexts: list[PresentationContext]) -> bool:
    """Whether a requestor proposes to send objects."""
    return any(str(one.abstract_syntax) in STORAGE_CLASSES for one in contexts)


def is_commitment_report(contexts: list[PresentationContext]) -> bool:
    """Whether a requestor comes to tell what it keeps of results, and not to send objects."""
    classes = {str(one.abstract_syntax) for one in contexts}
    return StorageCommitmentPushModel in classes and not wants_storage(contexts)
