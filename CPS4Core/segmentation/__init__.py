"""Stage 2: the residual U-Net and one file a semi-supervised method."""
