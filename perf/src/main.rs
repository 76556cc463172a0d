//! `plenum-perf`, the outsider: loads conference servers and says what came back.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Fill rooms with callers, let some talk, and check what everybody hears
    Rooms(rooms::Options),
}

fn main() -> ExitCode {
    let Cli {
        command: Command::Rooms(options),
    } = Cli::parse();
    match rooms::run(&options) {
        Ok(report) => {
            eprintln!("{report}");
            println!("{}", report.to_json());
            if report.holds() {
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
