//! Verdicts for people: diagnostics with carets, tables, and JSON for programs.
