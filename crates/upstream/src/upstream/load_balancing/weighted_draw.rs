//! Random draws in proportion to weights, in constant time: Vose's alias method, in integers, so that a weight of zero
//! is never drawn.

/// Draws positions by their weights.
#[derive(Debug, Default)]
pub(super) enum WeightedDraw {
    /// All weights are equal.
    Uniform(usize),
    Alias(Box<[AliasCell]>),
    /// All weights are zero, or there are none.
    #[default]
    Nothing,
}

/// A column of the alias table, which belongs to its own position and to one other.
#[derive(Clone, Copy, Debug)]
pub(super) struct AliasCell {
    /// The part of the column that is its own, of 2^32.
    own: u32,
    /// The position that has the rest; its own if the whole column is.
    alias: u32,
}

impl WeightedDraw {
    pub(super) fn new(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let count = weights.len() as u64;
        let total: u64 = weights.clone().map(u64::from).sum();
        if total == 0 {
            return WeightedDraw::Nothing;
        }
        if weights.clone().all(|weight| u64::from(weight) * count == total) {
            return WeightedDraw::Uniform(weights.len());
        }
        // Each column holds `total`; a position fills `weight * count`.
        let mut filled: Vec<u64> = weights.map(|weight| u64::from(weight) * count).collect();
        let whole = |position: usize| AliasCell { own: u32::MAX, alias: position as u32 };
        let mut cells: Box<[AliasCell]> = (0..filled.len()).map(whole).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..filled.len()).partition(|position| filled[*position] < total);
        while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
            let own = (u128::from(filled[low]) << 32) / u128::from(total);
            cells[low] = AliasCell { own: own as u32, alias: high as u32 };
            filled[high] -= total - filled[low];
            if filled[high] < total {
                large.pop();
                small.push(high);
            }
        }
        WeightedDraw::Alias(cells)
    }

    /// Whether all weights are equal.
    pub(super) fn is_uniform(&self) -> bool {
        matches!(self, WeightedDraw::Uniform(_))
    }

    /// A position. `None` if no weight is positive.
    pub(super) fn draw(&self) -> Option<usize> {
        match self {
            WeightedDraw::Uniform(count) => Some(fastrand::usize(..*count)),
            WeightedDraw::Alias(cells) => {
                // One random number: its halves are independent.
                let random = fastrand::u64(..);
                let column = (((random >> 32) * cells.len() as u64) >> 32) as usize;
                let cell = cells[column];
                Some(if (random as u32) < cell.own { column } else { cell.alias as usize })
            }
            WeightedDraw::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The share of each position that the table gives exactly.
    fn shares(weights: &[u32]) -> Vec<f64> {
        let mut shares = vec![0.0; weights.len()];
        match WeightedDraw::new(weights.iter().copied()) {
            WeightedDraw::Uniform(count) => shares.fill(1.0 / count as f64),
            WeightedDraw::Alias(cells) => {
                for (column, cell) in cells.iter().enumerate() {
                    let own = if cell.alias as usize == column { 1.0 } else { f64::from(cell.own) / 4_294_967_296.0 };
                    shares[column] += own / weights.len() as f64;
                    shares[cell.alias as usize] += (1.0 - own) / weights.len() as f64;
                }
            }
            WeightedDraw::Nothing => {}
        }
        shares
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(weights in prop::collection::vec(0..u32::MAX, 1..40)) {
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            prop_assume!(total > 0.0);
            for (weight, share) in weights.iter().zip(shares(&weights)) {
                prop_assert!((share - f64::from(*weight) / total).abs() < 1e-6, "{} of {}: {}", weight, total, share);
                prop_assert!(*weight > 0 || share == 0.0, "{:?}", weights);
            }
        }
    }

    #[test]
    fn draws_follow_the_shares() {
        fastrand::seed(1);
        let draw = WeightedDraw::new([0, 3, 1].into_iter());
        let mut counts = [0; 3];
        for _ in 0..40_000 {
            counts[draw.draw().unwrap()] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!((29_500..30_500).contains(&counts[1]), "{counts:?}");
        for weights in [&[][..], &[0, 0]] {
            assert_eq!(WeightedDraw::new(weights.iter().copied()).draw(), None);
        }
        assert!(WeightedDraw::new([7, 7].into_iter()).is_uniform());
    }
}
