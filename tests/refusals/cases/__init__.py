"""The table, by what is wrong."""

from cases import bundles, types

TABLE = [
    *bundles.CASES,
    *types.CASES,
]
