//! The status and admin listeners: health, readiness, metrics and read-only views of the inside.
