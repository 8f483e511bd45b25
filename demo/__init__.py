"""`make demo`: a study goes in by DICOM, a pipeline runs on it, the journey is printed."""
