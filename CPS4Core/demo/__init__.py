"""The whole journey on synthetic spines, and its report."""
