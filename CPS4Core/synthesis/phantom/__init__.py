"""Synthetic T2-weighted volumes with known labels: a phantom, never to be taken for a patient."""
