"""An archive in this process that behaves badly on purpose, which no real one can be asked to."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from support.clinic_peers import DicomAddress, free_port


def answer(**values: Any) -> tuple[int, Dataset]:
    """One pending answer of a C-FIND."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return 0xFF00, dataset


@contextlib.contextmanager
def bad_archive(
    on_find: Callable[[Any], Iterator[Any]] | None = None,
    on_get: Callable[[Any], Iterator[Any]] | None = None,
) -> Iterator[DicomAddress]:
    """A peer whose answers are those of the handlers, as pynetdicom's events take them."""
    ae = AE(ae_title="BADARCHIVE")
    handlers: list[Any] = []
    if on_find is not None:
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers.append((evt.EVT_C_FIND, on_find))
    if on_get is not None:
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
        handlers.append((evt.EVT_C_GET, on_get))
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    address = DicomAddress("BADARCHIVE", free_port())
    server = ae.start_server((address.host, address.port), block=False, evt_handlers=handlers)
    try:
        yield address
    finally:
        server.shutdown()


@contextlib.contextmanager
def silence() -> Iterator[Callable[[Any], Iterator[Any]]]:
    """A handler that answers nothing until the block ends."""
    end = threading.Event()

    def handler(_: Any) -> Iterator[Any]:
        end.wait(30)
        yield 0x0000, None

    try:
        yield handler
    finally:
        end.set()
