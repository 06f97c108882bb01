"""Stage 1: encoders, attention maps (eq. 1-3) and the objective of the pretraining."""
