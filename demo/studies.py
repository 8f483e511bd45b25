"""Makes the demo's two studies from the CT and MR samples that pydicom carries."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid


@dataclass(frozen=True)
class Study:
    """A study on disk: its directory, Study Instance UID, number of instances, and a description."""

    directory: Path
    uid: str
    instances: int
    about: str


def make_ct(directory: Path, slices: int = 40) -> Study:
    """A CT study of two series, plain and with contrast medium, of 512 x 512 pixels."""
    series = {"plain": 0, "contrast medium": 70}
    return _make(directory, "CT", slices, zoom=4, series=series, about=f"CT, 2 series of {slices} slices, 512 x 512")


def make_mr(directory: Path, slices: int = 30) -> Study:
    """An MR study of one series of 256 x 256 pixels."""
    return _make(directory, "MR", slices, zoom=4, series={"T2": 0}, about=f"MR, 1 series of {slices} slices, 256 x 256")


def _make(directory: Path, modality: str, slices: int, *, zoom: int, series: dict[str, int], about: str) -> Study:
    """Enlarge the sample's one slice, and let it fade towards both ends as a body would.

    Args:
        directory: is made.
        modality: `CT` or `MR`.
        slices: how many in each series.
        zoom: by what factor rows and columns grow.
        series: descriptions, and what each adds to the brighter pixels.
        about: a description of the whole.
    """
    directory.mkdir(parents=True)
    dataset = pydicom.dcmread(str(get_testdata_file(f"{modality}_small.dcm", download=False)))
    dataset.remove_private_tags()
    pixels = np.kron(dataset.pixel_array, np.ones((zoom, zoom), dtype=np.int32))
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.StudyInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID = "Demo^Patient", f"DEMO-{modality}"
    bright = pixels > np.percentile(pixels, 60)
    for number, (description, extra) in enumerate(series.items(), start=1):
        dataset.SeriesInstanceUID, dataset.SeriesNumber = generate_uid(), number
        dataset.SeriesDescription = description
        for position in range(slices):
            fade = 0.5 + 0.5 * np.sin(np.pi * (position + 1) / (slices + 1))
            image = np.where(pixels > 0, pixels * fade, pixels) + bright * extra
            dataset.PixelData = image.astype(np.int16).tobytes()
            dataset.InstanceNumber = position + 1
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.save_as(directory / f"{number}-{position + 1:04d}.dcm", enforce_file_format=True)
    return Study(directory, str(dataset.StudyInstanceUID), slices * len(series), about)
