"""Settings of the comparison systems, a group each: ``--set train.baselines.bcp.largest_component=false``.

Nothing heavy is imported, since they are part of all settings.
"""

from __future__ import annotations

from CPS4Core.settings_group import Group


class BCPSettings(Group):
    """``bcp``, and the systems built on it: ``graphcl`` and ``graphcl_text``."""

    largest_component: bool = True
    """Keep the largest piece of each structure in the teacher's labels. It deletes posterior elements, which lie apart
    from their vertebral body in many slices."""


class MCNetSettings(Group):
    """``mc_net`` and ``mc_net_plus``."""

    renormalise: bool = False
    """Scale the sharpened probabilities to one over the classes."""


class BaselineSettings(Group):
    """What can be chosen of each."""

    bcp: BCPSettings = BCPSettings()
    mc_net: MCNetSettings = MCNetSettings()
