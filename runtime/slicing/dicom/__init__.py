"""DICOM headers and geometry."""
