//! A snapshot for people to read: goldens, `/debug/snapshot`, the route table. Sorted, stable, without secrets.
