//! The admission of one request to an upstream.

/// A request that was admitted, and counted for the retry budget of its Service. Held until its response or its tunnel
/// has ended.
#[derive(Debug, Default)]
pub struct Admission {}
