"""From a volume to labels and attention maps, and the warm worker."""
