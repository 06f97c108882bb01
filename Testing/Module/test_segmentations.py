"""Masks are read from segmentation nodes and written to them as Slicer itself does it, leaving nothing behind."""

import numpy as np
import pytest

SHAPE = (9, 10, 8)


@pytest.fixture
def segmentations(module):
    from CPS4SegmentationLib import segmentations

    return segmentations


@pytest.fixture
def volume(module):
    volume = module.slicer.util.addVolumeFromArray(np.ones(SHAPE), name="mr")
    volume.SetSpacing(4.0, 0.8, 0.8)
    volume.SetOrigin(-3.0, 7.0, 20.0)
    volume.SetIJKToRASDirections(0.0, 0.8, 0.6, 1.0, 0.0, 0.0, 0.0, -0.6, 0.8)
    return volume


@pytest.fixture
def node(module, volume):
    node = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "spine")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume.GetID())
    return node


def block(*corner):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(first, first + 3) for first in corner)] = True
    return mask


def slicers_mask(module, node, segment, volume):
    return module.slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume) > 0


@pytest.mark.parametrize("second", [block(5, 5, 4), block(2, 3, 4)], ids=["apart", "overlapping"])
def test_masks_are_those_that_slicer_reads(module, segmentations, volume, node, second):
    masks = {"L4": block(1, 2, 3), "L5": second}
    for name, mask in masks.items():
        node.GetSegmentation().AddEmptySegment(name, name)
        segmentations.set_mask(node, name, mask, volume)
    nodes = module.slicer.mrmlScene.GetNumberOfNodes()
    found = segmentations.masks_of(node)
    assert module.slicer.mrmlScene.GetNumberOfNodes() == nodes
    for name in masks:
        assert np.array_equal(found[name], masks[name])
        assert np.array_equal(slicers_mask(module, node, name, volume), masks[name])


def test_writing_a_mask_leaves_the_volume_as_it_is(module, segmentations, volume, node):
    # Of the type of a mask, so that its memory could be taken for the mask's.
    voxels = np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)
    module.slicer.util.updateVolumeFromArray(volume, voxels)
    node.GetSegmentation().AddEmptySegment("L4", "L4")
    segmentations.set_mask(node, "L4", block(1, 2, 3), volume)
    assert np.array_equal(module.slicer.util.arrayFromVolume(volume), voxels)
    assert np.array_equal(segmentations.mask_of(node, "L4", volume), block(1, 2, 3))


def test_slicers_own_writing_is_read(module, segmentations, volume, node):
    mask = block(6, 0, 5)
    for name in ("L4", "L5"):
        node.GetSegmentation().AddEmptySegment(name, name)
    module.slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, "L5", volume)
    assert np.array_equal(segmentations.mask_of(node, "L5", volume), mask)
    assert not segmentations.mask_of(node, "L4", volume).any()


def test_a_segmentation_of_another_grid_is_brought_to_the_volume(module, segmentations, volume, node):
    node.GetSegmentation().AddEmptySegment("L4", "L4")
    segmentations.set_mask(node, "L4", block(3, 3, 3), volume)
    finer = module.slicer.util.addVolumeFromArray(np.ones((19, 21, 8)), name="finer")
    finer.CopyOrientation(volume)
    finer.SetSpacing(4.0, 0.37, 0.37)  # no voxel in the middle between two of the segmentation
    mask = segmentations.mask_of(node, "L4", finer)
    assert mask.sum() == pytest.approx(27 * (0.8 / 0.37) ** 2, rel=0.2)
    assert np.array_equal(mask, slicers_mask(module, node, "L4", finer))


def test_a_moved_segmentation_is_read_where_it_lies(module, segmentations, volume, node):
    node.GetSegmentation().AddEmptySegment("L4", "L4")
    segmentations.set_mask(node, "L4", block(3, 3, 3), volume)
    transform = module.slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    towards_k = [row[2] for row in module.slicer.util.arrayFromVTKMatrix(matrix_of(module, volume))[:3]]
    matrix = module.slicer.util.vtkMatrixFromArray(
        np.block([[np.eye(3), np.array(towards_k)[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
    )
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert np.array_equal(segmentations.mask_of(node, "L4", volume), block(4, 3, 3))


def matrix_of(module, volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix
