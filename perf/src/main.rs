//! `plenum-perf`, the outsider: loads conference servers and says what came back.

use std::fmt::Display;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod calls;
mod capacity;
mod child;
mod flood;
mod lateness;
mod limit;
mod paper;
mod peers;
mod process;
mod rooms;

#[derive(Debug, Parser)]
#[command(
    name = "plenum-perf",
    version,
    about = "Loads SIP conference servers and measures them"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set up and end calls at a steady rate, whatever the server makes of it
    Calls(calls::Options),
    /// Raise the number of participants until a stated bound breaks
    Capacity(capacity::Options),
    /// Send hostile datagrams to a SIP port while others are measured
    Flood(flood::Options),
    /// A conference paper's experiment: one server for all users, against a service that grows
    Paper(paper::Options),
    /// The same rooms against Plenum, Janus and SIP servers that run already
    Peers(peers::Options),
    /// What this machine's kernel can do on one core: the denominator
    Limit(limit::Options),
    /// Fill rooms with callers, let some talk, and check what everybody hears
    Rooms(rooms::Options),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Calls(options) => finish(
            calls::run(&options),
            calls::Report::holds,
            calls::Report::to_json,
        ),
        Command::Capacity(options) => finish(
            capacity::run(&options),
            capacity::Report::holds,
            capacity::Report::to_json,
        ),
        Command::Flood(options) => finish(
            flood::run(&options),
            flood::Report::holds,
            flood::Report::to_json,
        ),
        Command::Limit(options) => finish(
            limit::run(&options),
            limit::Report::holds,
            limit::Report::to_json,
        ),
        Command::Paper(options) => finish(
            paper::run(&options),
            paper::Report::holds,
            paper::Report::to_json,
        ),
        Command::Peers(options) => finish(
            peers::run(&options),
            peers::Report::holds,
            peers::Report::to_json,
        ),
        Command::Rooms(options) => finish(
            rooms::run(&options),
            rooms::Report::holds,
            rooms::Report::to_json,
        ),
    }
}

/// The table for people, the line for programs, and whether the server held.
fn finish<R: Display>(
    outcome: Result<R, impl Display>,
    holds: impl Fn(&R) -> bool,
    to_json: impl Fn(&R) -> String,
) -> ExitCode {
    match outcome {
        Ok(report) => {
            eprintln!("{report}");
            println!("{}", to_json(&report));
            if holds(&report) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("plenum-perf: {error}");
            ExitCode::FAILURE
        }
    }
}
