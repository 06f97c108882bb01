"""Segmentations of blocks in the panel Review, and what its table says of them."""

import numpy as np

LEVELS = ["T12", "T12/L1", "L1", "L1/L2", "L2", "L2/L3", "L3"]


def columns(volume_shape, names):
    """Blocks from head to tail, one a structure, as masks (k, j, i) of a volume whose k points to the head."""
    height = volume_shape[0] // (len(names) + 1)
    masks = {}
    for place, name in enumerate(names):
        mask = np.zeros(volume_shape, np.uint8)
        top = volume_shape[0] - place * height
        mask[top - height : top, 10:20, 2:10] = 1
        masks[name] = mask
    return masks


def segmentation_of(module, names=LEVELS, masks=None):
    """A segmentation of blocks over a volume of 12 x 30 x 80 voxels, reviewed."""
    slicer = module.slicer
    volume = slicer.util.addVolumeFromArray(np.random.default_rng(0).normal(size=(80, 30, 12)), name="mr")
    volume.SetSpacing(4.0, 1.0, 1.0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "levels")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    masks = masks or columns((80, 30, 12), names)
    for name, mask in masks.items():
        segment = node.GetSegmentation().AddEmptySegment("", name, [0.5, 0.5, 0.5])
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
    panel = module.panel("review")
    panel.ui.segmentationSelector.setCurrentNode(node)
    module.harness.process_events()
    return panel, node


def rows(panel):
    table = panel.ui.structureTable
    return [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]


def pick(panel, name):
    (row,) = [k for k, row in enumerate(rows(panel)) if row[0] == name]
    panel.ui.structureTable.setCurrentCell(row, 0)
