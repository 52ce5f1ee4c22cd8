//! Small values, counters and limits that several crates share. No module here knows another one, unless the table of
//! imports in `tests/tidy.rs` says so.

pub mod address_ranges;
pub mod begun_trace;
pub mod bind_address;
pub mod certified_key;
pub mod cookie_prefix;
pub mod counted_address;
pub mod duration_bounds;
pub mod forwarding_fields;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hex_digits;
pub mod hop_count;
pub mod md5;
pub mod persistent_map;
pub mod quantity;
pub mod request_target;
pub mod rewound;
pub mod shared_limit;
pub mod transport_protocol;
pub mod turn_clock;
