//! The whole service in virtual time: servers, channels, callers and a network that fails, from a seed.
//!
//! ```text
//!   scenario ──> world: queue of events in virtual time ──> check ──> report
//!                 │  ▲
//!                 ▼  │
//!      server = focus + rules of the cluster + channels;  caller = phone;  net = loss, delay, cuts
//! ```
//! One seed is one history, the same each time. `make sim` runs thousands of them and says how to replay
//! one that fails: `PLENUM_SIM_SEED=123 make sim`.

mod again;
mod caller;
mod check;
mod clock;
mod cost;
mod mutation;
mod net;
mod report;
mod scenario;
mod server;
mod shard;
mod tests;
mod world;
