"""Scans on their way into the spool: by DICOM, DICOMweb, folder, stick or upload."""
