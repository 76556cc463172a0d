//! The package's documents, and snapshots in parts.

mod any;
mod documents;
mod faults;
mod parts;
mod values;
