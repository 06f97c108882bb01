"""CPS4 and what it is measured against first: one file a method, found by name (``CPS4Core.systems``)."""
