"""A DICOM database without files of its own, and the loading of a study as Slicer's module DICOM does it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import SimpleITK as sitk

SERIES, INSTANCE, DESCRIPTION, STUDY, STUDY_DATE, PATIENT, PATIENT_NAME = (
    "0020|000e",
    "0008|0018",
    "0008|103e",
    "0020|000d",
    "0008|0020",
    "0010|0020",
    "0010|0010",
)


class DICOMDatabase:
    """`slicer.dicomDatabase`: which file holds which instance."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}

    def insert(self, path: str) -> None:
        self._files[self.fileValue(path, INSTANCE)] = path

    def fileForInstance(self, uid: str) -> str:
        return self._files.get(uid, "")

    def fileValue(self, path: str, tag: str) -> str:
        reader = sitk.ImageFileReader()
        reader.SetFileName(path)
        reader.ReadImageInformation()
        tag = tag.replace(",", "|").lower()
        return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""


def load_study(slicer: Any, folder: Path) -> list[Any]:
    """Imports and loads a folder: a volume a series, under its study and patient, the last one shown."""
    return [_load_series(slicer, files) for files in _series_in(folder)]


def _series_in(folder: Path) -> Iterator[list[str]]:
    reader = sitk.ImageSeriesReader
    for series in reader.GetGDCMSeriesIDs(str(folder)):
        yield list(reader.GetGDCMSeriesFileNames(str(folder), series))


def _load_series(slicer: Any, files: list[str]) -> Any:
    database = slicer.dicomDatabase
    for path in files:
        database.insert(path)
    name = database.fileValue(files[0], DESCRIPTION) or "Unknown"
    # Slicer's reader goes through the series by its files' order too.
    volume = slicer.util.loadVolume(files[0], {"name": name})
    uids = " ".join(database.fileValue(path, INSTANCE) for path in files)
    volume.SetAttribute("DICOM.instanceUIDs", uids)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = _item(hierarchy, hierarchy.GetSceneItemID(), database.fileValue(files[0], PATIENT), "Patient")
    study = _item(hierarchy, patient, database.fileValue(files[0], STUDY), "Study")
    name = database.fileValue(files[0], PATIENT_NAME) or "No name"
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    hierarchy.SetItemAttribute(patient, constants.GetDICOMPatientNameAttributeName(), name)
    day = database.fileValue(files[0], STUDY_DATE)
    hierarchy.SetItemAttribute(study, constants.GetDICOMStudyDateAttributeName(), day)
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    return volume


def _item(hierarchy: Any, parent: int, uid: str, level: str) -> int:
    """The subject hierarchy's item of a patient or a study; a new one if there is none."""
    found = hierarchy.GetItemByUID("DICOM", uid)
    if not found:
        create = hierarchy.CreateSubjectItem if level == "Patient" else hierarchy.CreateStudyItem
        found = create(parent, level)
        hierarchy.SetItemUID(found, "DICOM", uid)
    return found
