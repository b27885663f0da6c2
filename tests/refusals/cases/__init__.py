"""The table, by what is wrong."""

from cases import bundles, calls, images, kernel, privilege, rootfs, state, types, values

TABLE = [
    *bundles.CASES,
    *types.CASES,
    *values.CASES,
    *rootfs.CASES,
    *calls.CASES,
    *state.CASES,
    *privilege.CASES,
    *kernel.CASES,
    *images.CASES,
]
