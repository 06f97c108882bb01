"""DICOM files that tests write: classic series, one file a slice, and enhanced ones, many frames a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

PATIENT = {
    "PatientName": "Geheim^Gerda",
    "PatientID": "7734251",
    "PatientBirthDate": "19481203",
    "StudyDate": "20231117",
    "AccessionNumber": "ACC99481",
    "InstitutionName": "Klinik am Geheimsee",
}
"""Values that must never turn up anywhere."""


def planes(image: sitk.Image) -> list[tuple[np.ndarray, list[float], list[float]]]:
    """Return the pixels, the position and the orientation of each slice of a volume."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    orientation = [*direction[:, 0], *direction[:, 1]]
    return [
        (plane, list(image.TransformIndexToPhysicalPoint((0, 0, k))), orientation)
        for k, plane in enumerate(sitk.GetArrayFromImage(image).astype(np.uint16))
    ]


def write_classic(folder: Path, image: sitk.Image, uid: str = "1.2.3.4", **tags) -> list[Dataset]:
    """Write a series, one file a slice.

    ``tags`` hold a value for all slices, or a function of the slice's number and the usual value; None leaves one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for k, (plane, position, orientation) in enumerate(planes(image)):
        said = {
            "ImagePositionPatient": position,
            "ImageOrientationPatient": orientation,
            "PixelSpacing": [image.GetSpacing()[1], image.GetSpacing()[0]],
            "SliceThickness": image.GetSpacing()[2],
            "InstanceNumber": k + 1,
            "SeriesNumber": 5,
            "SeriesDescription": "T2 sag",
        }
        said |= {
            name: change(k, said.get(name)) if callable(change) else change for name, change in tags.items()
        }
        header = _header(plane, uid, MRImageStorage, {name: v for name, v in said.items() if v is not None})
        header.save_as(folder / f"{uid[-1]}-{k:03d}.dcm", enforce_file_format=True)
        written.append(header)
    return written


def write_enhanced(path: Path, image: sitk.Image, order: list[int], leave_out: str = "", **tags) -> None:
    """Write a series as one file whose frames are the slices in ``order``; a functional group may be left out."""
    slices = [planes(image)[k] for k in order]
    header = _header(
        np.stack([plane for plane, *_ in slices]),
        "1.2.3.9",
        EnhancedMRImageStorage,
        {"SeriesNumber": 9, **tags},
    )
    header.NumberOfFrames = len(slices)
    header.SharedFunctionalGroupsSequence = [
        _group(
            PixelMeasuresSequence={
                "PixelSpacing": [image.GetSpacing()[1], image.GetSpacing()[0]],
                "SliceThickness": image.GetSpacing()[2],
            },
            PlaneOrientationSequence={"ImageOrientationPatient": slices[0][2]},
        )
    ]
    header.PerFrameFunctionalGroupsSequence = [
        _group(PlanePositionSequence={"ImagePositionPatient": position}) for _, position, _ in slices
    ]
    for group in (*header.SharedFunctionalGroupsSequence, *header.PerFrameFunctionalGroupsSequence):
        if leave_out in group:
            delattr(group, leave_out)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)


def _group(**macros: dict) -> Dataset:
    group = Dataset()
    for name, values in macros.items():
        macro = Dataset()
        macro.update(values)
        setattr(group, name, [macro])
    return group


def _header(pixels: np.ndarray, uid: str, kind: str, tags: dict) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = kind
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.StudyInstanceUID = "1.2.3"
    header.SeriesInstanceUID = uid
    header.Modality = "MR"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape[-2:]
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = 0
    for name, value in {**PATIENT, **tags}.items():
        setattr(header, name, value)
    header.PixelData = pixels.tobytes()
    return header
