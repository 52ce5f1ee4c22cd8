//! Numbers and equality of JSON values: `1` and `1.0` are equal.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash, Hasher};

use serde_json::{Number, Value};

/// Whether the number has no fraction.
pub(super) fn is_integer(number: &Number) -> bool {
    integer(number).is_some() || number.as_f64().is_some_and(|value| value.fract() == 0.0)
}

/// The number, if it is written as an integer of at most 64 bits or is a fraction that equals such an integer.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn integer(number: &Number) -> Option<i128> {
    if let Some(value) = number.as_i64() {
        return Some(value.into());
    }
    if let Some(value) = number.as_u64() {
        return Some(value.into());
    }
    let value = number.as_f64()?;
    (value.fract() == 0.0 && value.abs() < 1e18).then_some(value as i128)
}

pub(super) fn compare(left: &Number, right: &Number) -> Ordering {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => float(left).total_cmp(&float(right)),
    }
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::INFINITY)
}

/// Whether a number is a multiple of another one. A quotient of fractions may differ from an integer by the rounding
/// errors of the two numbers and of the division.
pub(super) fn is_multiple(value: &Number, of: &Number) -> bool {
    if let (Some(value), Some(of)) = (integer(value), integer(of)) {
        return value % of == 0;
    }
    let (value, of) = (float(value), float(of));
    let quotient = value / of;
    if !quotient.is_finite() {
        // The quotient is too large to be represented; the remainder is exact.
        return value % of == 0.0;
    }
    (quotient - quotient.round()).abs() <= f64::EPSILON * 2.0 * quotient.abs()
}

/// Whether two values are equal in JSON Schema. `steps` is reduced by the number of compared values; `None` if there
/// are not as many.
pub(super) fn equal(left: &Value, right: &Value, steps: &mut u64) -> Option<bool> {
    *steps = steps.checked_sub(1)?;
    Some(match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right) == Ordering::Equal,
        (Value::Array(left), Value::Array(right)) => {
            if left.len() != right.len() {
                return Some(false);
            }
            for (left, right) in left.iter().zip(right) {
                if !equal(left, right, steps)? {
                    return Some(false);
                }
            }
            true
        }
        (Value::Object(left), Value::Object(right)) => {
            if left.len() != right.len() {
                return Some(false);
            }
            for (name, value) in left {
                match right.get(name) {
                    Some(other) if equal(value, other, steps)? => {}
                    _ => return Some(false),
                }
            }
            true
        }
        (left, right) => left == right,
    })
}

/// Whether no two values are equal, in a time proportional to their size.
pub(super) fn are_unique(values: &[Value], steps: &mut u64) -> Option<bool> {
    let seeds = foldhash::fast::RandomState::default();
    let mut hashes = Vec::with_capacity(values.len());
    for value in values {
        hashes.push((hash(value, &seeds, steps)?, value));
    }
    hashes.sort_unstable_by_key(|(hash, _)| *hash);
    for pair in hashes.windows(2) {
        let [(left_hash, left), (right_hash, right)] = pair else { continue };
        if left_hash == right_hash && equal(left, right, steps)? {
            return Some(false);
        }
    }
    Some(true)
}

fn hash(value: &Value, seeds: &foldhash::fast::RandomState, steps: &mut u64) -> Option<u64> {
    *steps = steps.checked_sub(1)?;
    let mut hasher = seeds.build_hasher();
    match value {
        Value::Null => 0_u8.hash(&mut hasher),
        Value::Bool(value) => (1_u8, value).hash(&mut hasher),
        Value::Number(number) => match integer(number) {
            Some(value) => (2_u8, value).hash(&mut hasher),
            None => (3_u8, float(number).to_bits()).hash(&mut hasher),
        },
        Value::String(text) => (4_u8, text).hash(&mut hasher),
        Value::Array(items) => {
            5_u8.hash(&mut hasher);
            for item in items {
                hash(item, seeds, steps)?.hash(&mut hasher);
            }
        }
        Value::Object(members) => {
            // Independent of the order of the members.
            let mut sum = 0_u64;
            for (name, value) in members {
                sum = sum.wrapping_add(seeds.hash_one((name, hash(value, seeds, steps)?)));
            }
            (6_u8, sum).hash(&mut hasher);
        }
    }
    Some(hasher.finish())
}
