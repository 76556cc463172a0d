//! The engine behind the binary `plenum`.
pub mod admin;
pub mod config;
pub mod log;
pub mod meters;
