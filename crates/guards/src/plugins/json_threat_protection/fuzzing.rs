//! Fuzzing of the JSON scanner: without limits, it accepts exactly what another parser accepts.

use serde_json::value::RawValue;

use super::scanner::{JsonLimits, MAX_DEPTH, ThreatKind, scan};

pub(crate) fn json_threats(input: &[u8]) {
    let unlimited = JsonLimits {
        depth: None,
        array_elements: None,
        object_entries: None,
        name_length: None,
        string_length: None,
        allows_duplicates: true,
    };
    let found = scan(input, &unlimited);
    let parsed = serde_json::from_slice::<&RawValue>(input);
    let opened = input.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    // The other parser has a limit of its own for nesting.
    if opened < 100 {
        assert_eq!(found.is_ok(), parsed.is_ok(), "{found:?} {parsed:?}");
    }
    if opened <= MAX_DEPTH {
        assert_ne!(found.map_err(|threat| threat.kind), Err(ThreatKind::Depth));
    }
    if found.is_err() {
        return;
    }
    // What is within narrow limits is within wide ones, and every limit that is not exceeded changes nothing.
    let narrow = JsonLimits {
        depth: Some(2),
        array_elements: Some(2),
        object_entries: Some(2),
        name_length: Some(2),
        string_length: Some(2),
        allows_duplicates: false,
    };
    if scan(input, &narrow).is_ok() {
        let depth = input.iter().scan((0_usize, false, false), |(depth, in_string, escaped), byte| {
            match byte {
                _ if *escaped => *escaped = false,
                b'\\' if *in_string => *escaped = true,
                b'"' => *in_string = !*in_string,
                b'[' | b'{' if !*in_string => *depth += 1,
                b']' | b'}' if !*in_string => *depth -= 1,
                _ => {}
            }
            Some(*depth)
        });
        assert!(depth.max().unwrap_or(0) <= 2);
    }
}
