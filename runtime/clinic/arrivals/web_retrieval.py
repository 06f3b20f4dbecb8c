"""Getting the images of a series from an archive by WADO-RS (PS3.18 10.4)."""

import warnings

from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.arrivals.query import FoundSeries
from edge_medgemma.runtime.clinic.arrivals.retrieval import OnImage, Retrieved
from edge_medgemma.runtime.clinic.association import called
from edge_medgemma.runtime.clinic.settings import Peer
from edge_medgemma.runtime.errors import EdgeMedgemmaError, PeerError, ScanError
from edge_medgemma.runtime.slicing.silence import silenced

_TIMEOUT_S = (5, 120)
"""For the connection, and between two parts of the answer."""

_AS_STORED = (("application/dicom", "*"),)


def fetch_series(
    intake: Intake, peer: Peer, study_uid: str, series: FoundSeries, on_image: OnImage
) -> Retrieved:
    """Retrieve a series in the encoding in which the archive keeps it.

    Raises:
        PeerError: the archive has no DICOMweb service, is away, refuses or breaks off.
        ResourceError: the disk is full.
    """
    from dicomweb_client import DICOMwebClient

    if not peer.dicomweb_url:
        raise PeerError(f"{called(peer)} has no dicomweb_url in the settings")
    names: set[str] = set()
    unread = 0
    with silenced("dicomweb_client"), silenced("pydicom"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            client = DICOMwebClient(peer.dicomweb_url, timeout=_TIMEOUT_S)
            client.set_http_retry_params(retry=False)
            for dataset in client.iter_series(study_uid, series.series_uid, _AS_STORED):
                with intake.receive() as temporary:
                    try:
                        dataset.save_as(temporary, enforce_file_format=True)
                        names.add(intake.accept(temporary).name)
                    except (ScanError, ValueError, AttributeError):
                        unread += 1
                on_image(len(names))
        except EdgeMedgemmaError:
            raise
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            words = f"answers with HTTP {status}" if status else "is away or broke off"
            raise PeerError(f"DICOMweb of {called(peer)} {words}; see dicomweb_url") from error
    problem = f"{unread} of the objects of {called(peer)} are no DICOM" if unread else ""
    return Retrieved(len(names), problem)
