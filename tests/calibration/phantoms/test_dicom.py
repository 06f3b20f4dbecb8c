import numpy as np
import pydicom

from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.volume import to_volume
from edge_medgemma.runtime.slicing.scan import find_series, read_volume


def test_series_reads_back_as_it_was_drawn(tmp_path):
    phantom = draw_phantom(9)
    write_dicom_series(phantom, tmp_path)
    listing = find_series(tmp_path)
    assert not listing.skipped
    (series,) = listing.series
    indices = np.arange(series.shape[0])
    volume = read_volume(series, indices)
    direct = to_volume(phantom, indices)
    assert series.body_part == direct.series.body_part
    assert series.orientation == direct.series.orientation
    assert np.abs(volume.array - direct.array).max() < 0.501  # half a stored unit, in float32
    assert np.abs(series.affine_lps_mm - direct.series.affine_lps_mm).max() < 1e-3
    assert np.abs(series.positions_mm - direct.series.positions_mm).max() < 1e-3


def test_files_are_valid_and_the_same_every_time(tmp_path):
    phantom = draw_phantom(9, count=2)
    first = write_dicom_series(phantom, tmp_path / "a")
    again = write_dicom_series(phantom, tmp_path / "b")
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    dataset = pydicom.dcmread(first[0])
    assert dataset.PatientName == "PHANTOM"
    assert dataset.pixel_array.shape == phantom.hounsfield.shape[1:]
