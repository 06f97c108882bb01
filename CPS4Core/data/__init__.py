"""Reading volumes, geometry, data-set layouts, splits, slices, augmentation and the phantom."""
