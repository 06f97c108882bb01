"""The colour tables that Slicer reads from files, of which slicer-core has none."""

import slicer_core
from matplotlib import colormaps

PERCEPTUAL = ("Viridis", "Inferno", "Magma", "Plasma", "Cividis")


def add_file_colour_nodes(scene: slicer_core.vtkMRMLScene) -> None:
    """Adds Slicer's perceptual colour maps under the IDs they have there: vtkMRMLColorTableNodeFileViridis.txt."""
    for name in PERCEPTUAL:
        node = slicer_core.vtkMRMLColorTableNode()
        node.SetTypeToUser()
        node.SetName(name)
        node.SetSingletonTag(f"File{name}.txt")
        node.SetNumberOfColors(256)
        for index, (red, green, blue, _) in enumerate(colormaps[name.lower()](range(256))):
            node.SetColor(index, str(index), red, green, blue, 1.0)
        node.SetAttribute("Category", "Continuous")
        node.HideFromEditorsOn()
        node.SetSaveWithScene(False)
        scene.AddNode(node)
