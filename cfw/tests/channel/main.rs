//! Channels between two ends, and between one end and the test.

mod framing;
mod pair;
mod sync;
mod transactions;
