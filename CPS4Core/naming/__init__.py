"""From kinds and pieces to levels: counting along the spine, with its certainty."""
