"""The other systems of the paper's Table 1, which the product finds by name (``CPS4Core.systems``)."""
