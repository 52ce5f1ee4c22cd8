//! Verdicts joined with what only the running proxy knows: which addresses could be bound.
