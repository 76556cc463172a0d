//! The engine behind the binary `plenum`.
