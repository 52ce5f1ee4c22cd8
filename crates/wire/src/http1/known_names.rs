//! The names of fields that the thread has read before. A name that the `http` crate does not define costs an
//! allocation in each head, and most heads have the same names: heads share those that are kept here.
//!
//! Clients and endpoints choose the names. So only a few short ones are kept, without values, and a name that is in
//! use stays: heads with invented names cost what they would if none were kept, and others continue to share theirs.

use std::cell::RefCell;

use http::HeaderName;
use http::header::InvalidHeaderName;

thread_local!(static KNOWN_NAMES: RefCell<KnownNames> = RefCell::default());

/// Calls `read` with the names that the thread knows: once for a head.
pub(super) fn with_known_names<T>(read: impl FnOnce(&mut KnownNames) -> T) -> T {
    KNOWN_NAMES.with_borrow_mut(read)
}

/// Each spelling has one place, where it is or is not.
#[derive(Debug)]
pub(super) struct KnownNames {
    places: Box<[KnownName; PLACES]>,
}

/// The name at a place. Its spelling is as received, so that comparing it needs no conversion to lower case.
#[derive(Debug)]
struct KnownName {
    name: Option<HeaderName>,
    spelling: [u8; MAX_LENGTH],
    length: u8,
    /// How many other names it withstands: it grows when this name is read, and falls when another one is. So of
    /// several names with the same place, the most frequent one is kept (Boyer and Moore, "MJRTY", 1981).
    score: u8,
}

impl Default for KnownNames {
    fn default() -> Self {
        KnownNames { places: Box::new([const { KnownName::NONE }; PLACES]) }
    }
}

impl KnownNames {
    /// The name with this spelling, equal to that of [`HeaderName::from_bytes`].
    pub(super) fn get(&mut self, spelling: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
        let known = &mut self.places[usize::from(place(spelling))];
        if let Some(name) = &known.name
            && known.spelling.get(..usize::from(known.length)) == Some(spelling)
        {
            known.score = known.score.saturating_add(1);
            return Ok(name.clone());
        }
        let name = HeaderName::from_bytes(spelling)?;
        known.compete(spelling, &name);
        Ok(name)
    }
}

impl KnownName {
    const NONE: KnownName = KnownName { name: None, spelling: [0; MAX_LENGTH], length: 0, score: 0 };

    /// Another name has this place.
    fn compete(&mut self, spelling: &[u8], name: &HeaderName) {
        let (Some(memory), Ok(length)) = (self.spelling.get_mut(..spelling.len()), u8::try_from(spelling.len())) else {
            return;
        };
        if self.score > 0 {
            self.score -= 1;
            return;
        }
        memory.copy_from_slice(spelling);
        (self.length, self.name, self.score) = (length, Some(name.clone()), FIRST_SCORE);
    }
}

/// The place of a spelling. Its length, its first and its last bytes decide, because related names differ in one of
/// them: `sec-fetch-mode` and `sec-fetch-site`, `x-forwarded-host` and `x-forwarded-port`. Names can be invented for
/// any place whatever decides, so nothing relies on this.
fn place(spelling: &[u8]) -> u8 {
    let (first, last) = match (spelling.first_chunk(), spelling.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        // Shorter ones are complete in the number.
        _ => (spelling.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), 0),
    };
    let [place, ..] = (first ^ last.rotate_left(5) ^ spelling.len() as u64).wrapping_mul(MULTIPLIER).to_be_bytes();
    place
}

/// As many as a byte has values.
const PLACES: usize = 256;
/// Longer ones are unusual: `cross-origin-opener-policy-report-only` is as long. All places take 20 KiB, and the memory
/// of their names at most as much again.
const MAX_LENGTH: usize = 38;
/// Keeping a name costs an allocation. So a place keeps another one after at least as many readings as this.
const FIRST_SCORE: u8 = 8;
/// 2^64 divided by the golden ratio, which spreads similar numbers (Knuth, The Art of Computer Programming, 6.4).
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Names that a browser sends over HTTP/1.1.
    const OF_BROWSERS: &str = "Host Connection Cache-Control sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform Accept \
         Upgrade-Insecure-Requests User-Agent Sec-Fetch-Site Sec-Fetch-Mode Sec-Fetch-User Sec-Fetch-Dest Referer \
         Accept-Encoding Accept-Language Cookie Priority";
    const OF_PROXIES: &str = "x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip \
         x-request-id traceparent tracestate via";

    /// A name that has the same place as all others of this kind.
    fn rival(number: usize) -> String {
        format!("x-rival-{number:06}-of-them")
    }

    /// Whether the name is kept: then, all heads have the same memory of it.
    fn is_kept(names: &mut KnownNames, spelling: &str) -> bool {
        let [first, second] = [(); 2].map(|()| names.get(spelling.as_bytes()).unwrap());
        first.as_str().as_ptr() == second.as_str().as_ptr()
    }

    fn read(names: &mut KnownNames, spelling: &str, times: usize) {
        for _ in 0..times {
            assert_eq!(names.get(spelling.as_bytes()).unwrap().as_str(), spelling.to_ascii_lowercase());
        }
    }

    #[test]
    fn a_name_is_shared_in_each_of_its_spellings() {
        let mut names = KnownNames::default();
        for spelling in ["x-number", "X-Number", "X-NUMBER", "te", "sec-fetch-mode"] {
            read(&mut names, spelling, 1);
            assert!(is_kept(&mut names, spelling), "{spelling}");
        }
        let longest = "cross-origin-opener-policy-report-only";
        assert_eq!(longest.len(), MAX_LENGTH);
        assert!(is_kept(&mut names, longest));
        assert!(!is_kept(&mut names, &format!("{longest}s")));
    }

    #[test]
    fn invented_names_do_not_replace_a_name_in_use() {
        let mut names = KnownNames::default();
        let used = rival(0);
        for round in 0..100 {
            read(&mut names, &used, 2);
            read(&mut names, &rival(round + 1), 1);
            read(&mut names, &rival(round + 1001), 1);
        }
        assert!(is_kept(&mut names, &used));
        // Those that are too long to be kept do not even compete.
        let too_long = "x-rival-".to_owned() + &"long".repeat(20) + "-of-them";
        read(&mut names, &too_long, 1000);
        assert!(is_kept(&mut names, &used));
    }

    #[test]
    fn invented_names_are_seldom_kept() {
        let mut names = KnownNames::default();
        let kept: HashSet<_> = (0..900)
            .map(|number| {
                read(&mut names, &rival(number), 1);
                names.places[usize::from(place(rival(0).as_bytes()))].name.clone().unwrap()
            })
            .collect();
        assert_eq!(kept.len(), 900 / (usize::from(FIRST_SCORE) + 1));
    }

    #[test]
    fn a_name_that_is_not_used_any_more_is_replaced() {
        let mut names = KnownNames::default();
        read(&mut names, &rival(0), 100_000);
        read(&mut names, &rival(1), usize::from(u8::MAX) + 1);
        assert!(is_kept(&mut names, &rival(1)));
        assert!(!is_kept(&mut names, &rival(0)));
    }

    /// Of two names with the same place that are in all heads, one is kept.
    #[test]
    fn names_with_the_same_place_do_not_replace_each_other() {
        let mut names = KnownNames::default();
        for _ in 0..100 {
            read(&mut names, &rival(0), 1);
            read(&mut names, &rival(1), 1);
        }
        assert!(is_kept(&mut names, &rival(0)));
    }

    #[test]
    fn usual_names_have_different_places() {
        for names in [OF_BROWSERS, OF_PROXIES] {
            let names: Vec<_> = names.split_whitespace().collect();
            let places: HashSet<_> = names.iter().map(|name| place(name.as_bytes())).collect();
            assert_eq!(places.len(), names.len());
        }
    }

    #[test]
    fn names_take_little_memory() {
        assert!(size_of::<KnownName>() * PLACES <= 20 * 1024);
    }

    /// Spellings of which many are equal, have the same place or differ in case only, and some that are invalid.
    fn spellings() -> impl Strategy<Value = Vec<u8>> {
        let of_browsers: Vec<_> = OF_BROWSERS.split_whitespace().collect();
        prop_oneof![
            4 => "(X|x)-(r|R)ival-[ab]{2}[a :]-of-them".prop_map(String::into_bytes),
            2 => "[a-c]{0,2}".prop_map(String::into_bytes),
            2 => prop::sample::select(of_browsers).prop_map(|name| name.as_bytes().to_vec()),
            1 => "[a-zA-Z-]{30,70}".prop_map(String::into_bytes),
            1 => vec(any::<u8>(), 0..10),
        ]
    }

    proptest! {
        /// Whatever was read before.
        #[test]
        fn names_are_those_of_their_spellings(spellings in vec(spellings(), 0..300)) {
            let mut names = KnownNames::default();
            for spelling in &spellings {
                let expected = HeaderName::from_bytes(spelling).ok();
                let name = names.get(spelling).ok();
                prop_assert_eq!(name.as_ref().map(HeaderName::as_str), expected.as_ref().map(HeaderName::as_str));
                // A name that the library defines must be the defined one, or the same name would differ.
                prop_assert_eq!(name, expected);
            }
        }
    }
}
