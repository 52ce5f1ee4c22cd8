//! The numbers from which traces are selected and identified: of a generator of each thread, so that a request costs no
//! system call.

use std::cell::Cell;

use aws_lc_rs::rand;

/// xoshiro256++. Its state is as large as several identifiers, so that those of all traces of all processes differ. The
/// numbers are not meant to be secret.
#[derive(Clone, Copy, Debug)]
pub struct RandomIds([u64; 4]);

thread_local! {
    static OF_THREAD: Cell<RandomIds> = Cell::new(RandomIds::from_system());
}

impl RandomIds {
    /// Calls `take` with the generator of the thread, which it must not use in another way.
    #[inline]
    pub fn with<T>(take: impl FnOnce(&mut RandomIds) -> T) -> T {
        OF_THREAD.with(|of_thread| {
            let mut ids = of_thread.get();
            let taken = take(&mut ids);
            of_thread.set(ids);
            taken
        })
    }

    fn from_system() -> Self {
        let mut bytes = [[0; 8]; 4];
        for part in &mut bytes {
            rand::fill(part).expect("the system provides random bytes");
        }
        RandomIds::from_seed(bytes.map(u64::from_le_bytes))
    }

    /// With a state of zeros, all numbers would be 0.
    pub fn from_seed(seed: [u64; 4]) -> Self {
        RandomIds(if seed == [0; 4] { [1; 4] } else { seed })
    }

    #[inline]
    pub fn u64(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let number = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        number
    }

    /// At least 0 and below 1.
    #[inline]
    pub fn f64(&mut self) -> f64 {
        // As many bits as the fraction has.
        (self.u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    /// The first numbers of the reference implementation with this state.
    #[test]
    fn numbers_are_those_of_the_algorithm() {
        let mut ids = RandomIds::from_seed([1, 2, 3, 4]);
        let expected =
            [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386, 9_228_616_714_210_784_205];
        assert_eq!([(); 5].map(|()| ids.u64()), expected);
    }

    #[test]
    fn fractions_are_spread_evenly() {
        let mut ids = RandomIds::from_seed([0; 4]);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            counts[(ids.f64() * 10.0) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..=1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn threads_have_different_numbers() {
        let numbers = || RandomIds::with(|ids| [(); 3].map(|()| ids.u64()));
        let mut all = vec![numbers(), numbers()];
        all.extend((0..2).map(|_| thread::spawn(numbers).join().unwrap()));
        assert_eq!(all.concat().into_iter().collect::<HashSet<_>>().len(), 12);
    }
}
