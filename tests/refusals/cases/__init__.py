"""The table, by what is wrong."""

from cases import bundles

TABLE = [
    *bundles.CASES,
]
