//! The command line of `plenum`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use sip::digest::Credentials;

use crate::call::{self, CallError, Source, Target};
use crate::codec::{Codec, SAMPLE_RATE};
use crate::config::{Config, ConfigError};
use crate::flamegraph::{self, Job};
use crate::focus::Access;
use crate::io::tls::Tls;
use crate::{log, serve, top, trace};

/// Something went wrong while running.
const FAILED: u8 = 1;

/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "plenum",
    version,
    about = "A conference media engine: SIP callers meet in rooms and hear each other"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    source: ConfigSource,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what plenum does without a command)
    Serve(ConfigSource),
    /// Check a configuration and say what is wrong with it
    Check(ConfigSource),
    /// Call a room like a phone, and say how the call went
    Call(CallArguments),
    /// Watch a running server: load, cores, cluster
    Top {
        /// Where the server's HTTP interface is
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
        http: String,
        /// Print one snapshot and exit
        #[arg(long)]
        once: bool,
    },
    /// Record where a running server spends its time, as an SVG
    Flamegraph(FlamegraphArguments),
    /// Show the SIP messages of a running server, call by call
    Trace(TraceArguments),
}

#[derive(Debug, Args)]
struct TraceArguments {
    /// Only calls whose Call-ID begins so
    #[arg(long, value_name = "CALL-ID")]
    call: Option<String>,
    /// Only calls of this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// Where the server's HTTP interface is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    http: String,
    /// Show messages as they come, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Watch this long; otherwise show what the server remembers (see trace.keep)
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Show whole messages
    #[arg(long)]
    raw: bool,
}

impl TraceArguments {
    fn options(self) -> trace::client::Options {
        let Self {
            call,
            room,
            http,
            follow,
            seconds,
            raw,
        } = self;
        trace::client::Options {
            http,
            call,
            room,
            follow,
            seconds,
            raw,
        }
    }
}

#[derive(Debug, Args)]
struct FlamegraphArguments {
    /// Where the server's HTTP interface is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    http: String,
    /// How long to record
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
    /// Write to this file; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write stacks as text, to compare with later
    #[arg(long)]
    folded: bool,
    /// Colour the recording by how it differs from this one, made with --folded
    #[arg(long, value_name = "BEFORE", conflicts_with = "folded")]
    against: Option<PathBuf>,
    /// Compare two recordings made with --folded and ask no server
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"],
        conflicts_with_all = ["http", "seconds", "folded", "against"])]
    diff: Option<Vec<PathBuf>>,
    /// Draw a recording made with --folded and ask no server
    #[arg(long, value_name = "RECORDING",
        conflicts_with_all = ["http", "seconds", "folded", "against", "diff"])]
    draw: Option<PathBuf>,
}

impl FlamegraphArguments {
    fn job(&self) -> Job {
        let (http, seconds) = (self.http.clone(), self.seconds);
        if let Some(recording) = self.draw.clone() {
            return Job::Drawing { recording };
        }
        match (&self.diff, &self.against) {
            (Some(pair), _) => Job::Difference {
                before: pair[0].clone(),
                after: pair[1].clone(),
            },
            (None, Some(before)) => Job::Against {
                http,
                seconds,
                before: before.clone(),
            },
            (None, None) if self.folded => Job::Stacks { http, seconds },
            (None, None) => Job::Picture { http, seconds },
        }
    }
}

#[derive(Debug, Args)]
struct CallArguments {
    /// sip:ROOM@HOST:PORT, with ;transport=tcp or ;transport=tls behind it
    target: Target,
    /// Trust the authorities in this PEM file instead of the system's (with tls)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Name to be known by, where a password is asked for
    #[arg(long, value_name = "NAME", requires = "password")]
    user: Option<String>,
    /// The password that goes with it; others of this machine see it while the call lasts
    #[arg(long, value_name = "PASSWORD", requires = "user")]
    password: Option<String>,
    /// What to offer
    #[arg(long, default_value = "pcmu", value_parser = codec)]
    codec: Codec,
    #[command(flatten)]
    source: SourceArguments,
    /// Write what is heard to this WAV file
    #[arg(long, value_name = "FILE.wav")]
    record: Option<PathBuf>,
    /// Hang up after this long; otherwise when the file to send has ended, or at Ctrl-C
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<Duration>,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct SourceArguments {
    /// Send this WAV file
    #[arg(long, value_name = "FILE.wav")]
    send: Option<PathBuf>,
    /// Send a tone of this pitch
    #[arg(long, value_name = "HZ", value_parser = pitch)]
    tone: Option<f64>,
    /// Send silence (the default)
    #[arg(long)]
    silence: bool,
}

#[derive(Clone, Debug, Args)]
struct ConfigSource {
    /// Configuration file (TOML); engine/example.toml explains every key
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key; lists are comma-separated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigSource {
    fn load(&self) -> Result<Config, ConfigError> {
        let cores: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .map(|core| core.id)
            .collect();
        Config::load(self.config.as_deref(), std::env::vars(), &self.set, &cores)
    }

    /// The configuration with the files that it names.
    fn load_all(&self) -> Result<(Config, Tls, Access), ConfigError> {
        let config = self.load()?;
        let tls = Tls::load(&config.sip.tls)?;
        let access = Access::load(&config.auth)?;
        Ok((config, tls, access))
    }

    fn name(&self) -> &Path {
        self.config
            .as_deref()
            .unwrap_or_else(|| Path::new("the default configuration"))
    }
}

/// Does what the arguments of the process say.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.source)) {
        Command::Serve(source) => serve_from(source),
        Command::Check(source) => match source.load_all() {
            Ok(_) => {
                println!("{}: fine", source.name().display());
                ExitCode::SUCCESS
            }
            Err(error) => fail(USAGE, &error),
        },
        Command::Call(arguments) => match call_with(arguments) {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(FAILED, &error),
        },
        Command::Flamegraph(arguments) => {
            match flamegraph::run(&arguments.job(), &arguments.output) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(FAILED, &error),
            }
        }
        Command::Trace(arguments) => match trace::client::run(&arguments.options()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(FAILED, &error),
        },
        Command::Top { http, once } => match top::run(&http, once) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(FAILED, &error),
        },
    }
}

fn serve_from(source: ConfigSource) -> ExitCode {
    let (config, tls, access) = match source.load_all() {
        Ok(all) => all,
        Err(error) => return fail(USAGE, &error),
    };
    let log = match log::init(config.log) {
        Ok(log) => log,
        Err(error) => return fail(FAILED, &error),
    };
    match serve::serve(config, tls, access, log, move || source.load()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

fn call_with(arguments: CallArguments) -> Result<call::Summary, CallError> {
    let CallArguments {
        target,
        ca,
        user,
        password,
        codec,
        source,
        record,
        seconds,
    } = arguments;
    let credentials = user.zip(password).map(|(username, password)| Credentials {
        username,
        password,
        realm: None,
    });
    let source = match source {
        SourceArguments {
            send: Some(path), ..
        } => Source::file(&path).map_err(CallError::Wav)?,
        SourceArguments { tone: Some(hz), .. } => Source::tone(hz),
        _ => Source::Silence,
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    call::call(call::Options {
        target,
        ca,
        credentials,
        codec,
        source,
        record,
        duration: seconds,
        interrupted,
    })
}

fn codec(name: &str) -> Result<Codec, String> {
    let names = || {
        Codec::ALL
            .map(|codec| codec.name().to_ascii_lowercase())
            .join(", ")
    };
    Codec::from_name(name).ok_or_else(|| format!("this version speaks {}", names()))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Above half the sample rate there is no tone to send.
fn pitch(text: &str) -> Result<f64, String> {
    let highest = f64::from(SAMPLE_RATE) / 2.0;
    let hz = text.parse::<f64>().map_err(|error| error.to_string())?;
    if hz > 0.0 && hz < highest {
        Ok(hz)
    } else {
        Err(format!("a tone lies between 0 and {highest} Hz"))
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("plenum: {error}");
    ExitCode::from(code)
}
