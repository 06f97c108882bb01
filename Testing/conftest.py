"""Which tests are slow: those that train a model or use a trained one."""

import pytest

TRAINED = {"trained", "trained_model"}
"""Fixtures that train first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if TRAINED.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
