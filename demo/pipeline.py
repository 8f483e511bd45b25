"""The demo's AI: measures every series of its input, and writes a structured report of each, and one text for people.

    python pipeline.py INPUT OUTPUT [COPY_OF_THE_TEXT]

It is an ordinary program: it gets two directories and needs nothing of the gateway.
"""

import datetime as dt
import os
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, generate_uid

_BARS = " ▁▂▃▄▅▆▇█"


def main() -> int:
    """Run; returns 0 when there was something to measure."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    series: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(source.rglob("*.dcm")):
        series[file.parent.name].append(file)
    volumes = [[pydicom.dcmread(file) for file in files] for files in series.values()]
    texts = []
    for slices in sorted(volumes, key=lambda slices: int(slices[0].get("SeriesNumber") or 0)):
        text = measure(slices)
        texts.append(text)
        report(slices[0], text).save_as(target / f"report-{len(texts)}.dcm", enforce_file_format=True)
    findings = "\n\n".join(texts) + f"\n\n{len(texts)} structured reports written for job {os.environ.get('JOB_ID')}\n"
    (target / "report.txt").write_text(findings, encoding="utf-8")
    if len(sys.argv) > 3:
        copy = Path(sys.argv[3])
        copy.mkdir(parents=True, exist_ok=True)
        (copy / f"{os.environ.get('JOB_ID', 'job')}.txt").write_text(findings, encoding="utf-8")
    print(f"measured {len(texts)} series, {sum(map(len, series.values()))} instances")
    return 0 if texts else 1


def measure(slices: list[Dataset]) -> str:
    """Describe a series' pixel values in words, numbers and a histogram."""
    first = slices[0]
    slope, intercept = float(first.get("RescaleSlope", 1)), float(first.get("RescaleIntercept", 0))
    volume = np.stack([each.pixel_array for each in slices]) * slope + intercept
    body = volume[volume > np.percentile(volume, 20)]
    unit = "HU" if first.Modality == "CT" else "signal"
    counts, edges = np.histogram(body, bins=48)
    # The root lets small peaks be seen beside large ones.
    heights = np.sqrt(counts / counts.max())
    bars = "".join(_BARS[round(height * (len(_BARS) - 1))] for height in heights)
    about = first.get("SeriesDescription", "without description")
    spread = (
        f"mean {body.mean():.1f} {unit}, deviation {body.std():.1f}, range {volume.min():.0f} to {volume.max():.0f}"
    )
    shape = f"{len(slices)} slices of {first.Columns} x {first.Rows}"
    return "\n".join(
        [
            f"{first.Modality} series {first.SeriesNumber}, {about}: {shape}",
            f"  {spread}",
            f"  {bars}",
            f"  {edges[0]:<24.0f}{edges[-1]:>24.0f} {unit}",
        ]
    )


def report(of: Dataset, text: str) -> Dataset:
    """A Basic Text SR (PS3.3 §A.35.1) of the same patient and study that says `text`."""
    now = dt.datetime.now(tz=dt.UTC)
    dataset = Dataset()
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        setattr(dataset, name, of.get(name, ""))
    for name in ("StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
        setattr(dataset, name, of.get(name, ""))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = BasicTextSRStorage, generate_uid()
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.InstanceNumber = generate_uid(), 900, 1
    dataset.Modality, dataset.Manufacturer, dataset.SeriesDescription = "SR", "dicom-adapter demo", "Statistics"
    dataset.ContentDate, dataset.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ReferencedPerformedProcedureStepSequence, dataset.PerformedProcedureCodeSequence = [], []
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging study")]
    finding = Dataset()
    finding.RelationshipType, finding.ValueType = "CONTAINS", "TEXT"
    finding.ConceptNameCodeSequence = [_code("121071", "DCM", "Finding")]
    finding.TextValue = text
    dataset.ContentSequence = [finding]
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


if __name__ == "__main__":
    sys.exit(main())
