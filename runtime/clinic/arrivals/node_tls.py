"""TLS of the node's second port: BCP 195 with certificates on both sides (PS3.15 B.9)."""

import ssl

from edge_medgemma.runtime.clinic.certificates import CertificateFiles
from edge_medgemma.runtime.errors import ResourceError


def server_context(files: CertificateFiles) -> ssl.SSLContext:
    """A context that lets in whoever has a certificate of the box's own authority.

    Raises:
        ResourceError: a file is missing or damaged.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authority)
    except (OSError, ssl.SSLError) as error:
        raise ResourceError(
            f"could not read the certificates in '{files.certificate.parent}'; restore them from a copy"
        ) from error
    return context
