//! Small values, counters and limits that several crates share, each of which is a module of its own without knowledge of
//! the others.

pub mod begun_trace;
pub mod bind_address;
pub mod certified_key;
pub mod cookie_prefix;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hex_digits;
pub mod hop_count;
pub mod persistent_map;
pub mod quantity;
pub mod request_target;
pub mod rewound;
pub mod shared_limit;
pub mod transport_protocol;
pub mod turn_clock;
