//! Medians, quartiles and ratios of what was measured side by side.

use crate::Result;
use crate::contender::Contender;

/// The times of one contender, a batch a round.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    rounds: Vec<Vec<f64>>,
}

impl Samples {
    /// All times together, in order.
    fn sorted(&self) -> Vec<f64> {
        let mut all = self.rounds.concat();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The time that this part of all samples does not exceed.
    pub fn quantile(&self, part: f64) -> f64 {
        quantile(&self.sorted(), part)
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    /// Ratio of the medians.
    pub fn ratio(&self, other: &Samples) -> f64 {
        self.median() / other.median()
    }

    /// Quartiles of the ratios of the two medians of each round: what was measured within the
    /// same fraction of a second, so that a busy machine troubles both.
    pub fn paired(&self, other: &Samples) -> [f64; 3] {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let mut ratios: Vec<f64> = pairs.map(|(a, b)| median(a) / median(b)).collect();
        ratios.sort_by(f64::total_cmp);
        [0.25, 0.5, 0.75].map(|part| quantile(&ratios, part))
    }
}

/// The median of numbers in any order.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let place = part * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// Lets every contender run a batch in each round. The order turns from round to round, because
/// the kernel is still taking away one container's namespaces when the next is made.
pub fn interleave(contenders: &mut [Contender], rounds: usize) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); contenders.len()];
    for round in 0..rounds {
        for position in 0..contenders.len() {
            let place = if round % 2 == 0 { position } else { contenders.len() - 1 - position };
            let index = (place + round / 2) % contenders.len();
            let times = contenders[index].run()?;
            samples[index].rounds.push(times);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let samples = Samples { rounds: vec![vec![4.0, 1.0], vec![3.0, 2.0]] };
        assert_eq!(samples.median(), 2.5);
        assert_eq!(samples.quantile(0.25), 1.75);
        assert_eq!(samples.count(), 4);
    }

    #[test]
    fn a_disturbance_that_hits_both_does_not_change_the_paired_ratio() {
        let slow = Samples { rounds: vec![vec![2.0], vec![20.0], vec![2.0]] };
        let fast = Samples { rounds: vec![vec![1.0], vec![10.0], vec![1.0]] };
        assert_eq!(slow.paired(&fast), [2.0; 3]);
    }
}
