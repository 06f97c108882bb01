"""Synthetic spine MR with known labels: a phantom, never to be taken for a patient."""
