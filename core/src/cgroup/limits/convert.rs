//! Version 1 units in version 2 units. Pure.

/// `cpu.shares` (2 to 262144, 1024 the default) as `cpu.weight` (1 to 10000, 100 the default):
/// the quadratic in log2(shares) that maps both ends and both defaults onto each other.
pub(in crate::cgroup) fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    // A whole number must not be rounded up for a last bit of noise.
    (10f64.powf(exponent) - 1e-9).ceil() as u64
}

/// blkio weight (10 to 1000) as `io.weight` (1 to 10000), linear.
pub(in crate::cgroup) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_and_the_default_of_cpu_shares_map_onto_those_of_cpu_weight() {
        for (shares, weight) in
            [(0, 1), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 30, 10_000)]
        {
            assert_eq!(cpu_weight(shares), weight, "{shares} shares");
        }
        let weights: Vec<u64> = (2..20_000).map(cpu_weight).collect();
        assert!(weights.is_sorted());
    }

    #[test]
    fn both_ends_of_the_blkio_weight_map_onto_those_of_io_weight() {
        assert_eq!((io_weight(10), io_weight(500), io_weight(1000)), (1, 4950, 10_000));
    }
}
