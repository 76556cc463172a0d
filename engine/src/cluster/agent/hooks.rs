//! Programs of the operator's that start and stop servers.

use std::collections::HashSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cfw::SvrId;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::mpsc::Sender;

use super::connection::Event;
use crate::cluster::Hook;

/// Longest time for a program: as long as the rules wait for a server that is being started.
pub(super) const TIME_MAX: Duration = Duration::from_secs(30);

/// How often a program's thread looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// The programs, and for which servers one runs.
pub(super) struct Hooks {
    pub(super) start: Option<PathBuf>,
    pub(super) stop: Option<PathBuf>,
    pub(super) time_max: Duration,
    pub(super) events: Sender<Event>,
    pub(super) running: HashSet<SvrId>,
}

impl Hooks {
    /// Runs the program on a thread of its own, with the server's name and the URI of its control channel as
    /// arguments; [`Event::HookDone`] follows. What it writes to its standard error goes to ours. What does
    /// not end in time is killed, with all that it has started.
    ///
    /// # Errors
    /// There is no such program, or one runs for that server already.
    pub(super) fn run(&mut self, hook: Hook, svr_id: SvrId, uri: String) -> Result<(), String> {
        let program = match hook {
            Hook::Start => self.start.clone(),
            Hook::Stop => self.stop.clone(),
        };
        let program = program.ok_or("none is configured")?;
        // What it does, and when it ends, would be taken for the other's.
        if !self.running.insert(svr_id) {
            return Err("another program is running for this server".to_owned());
        }
        let (events, time_max) = (self.events.clone(), self.time_max);
        let work = move || {
            tracing::info!(program = %program.display(), %svr_id, "running");
            let result = run_within(time_max, &program, svr_id, &uri);
            if let Err(reason) = &result {
                tracing::error!(program = %program.display(), %svr_id, reason, "program failed");
            }
            let done = Event::HookDone {
                hook,
                svr_id,
                result,
            };
            // The server may have ended meanwhile.
            let _ = events.blocking_send(done);
        };
        let spawned = thread::Builder::new().name("hook".to_owned()).spawn(work);
        if let Err(error) = spawned {
            self.running.remove(&svr_id);
            return Err(format!("no thread for it: {error}"));
        }
        Ok(())
    }

    /// [`Event::HookDone`] has come.
    pub(super) fn done(&mut self, svr_id: SvrId) {
        self.running.remove(&svr_id);
    }
}

fn run_within(time_max: Duration, program: &Path, svr_id: SvrId, uri: &str) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let mut child = Command::new(program)
        .args([svr_id.as_str(), uri])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(text)?;
    let end = Instant::now() + time_max;
    while Instant::now() < end {
        match child.try_wait().map_err(text)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(status.to_string()),
            None => thread::sleep(LOOK),
        }
    }
    // It may have ended just now; it is not waited for yet, so that its number is nobody else's.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    child.wait().map_err(text)?;
    Err(format!(
        "killed, as it took longer than {} s",
        time_max.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{self, Receiver};

    use super::*;

    fn hooks(start: &str, stop: &str) -> (Hooks, Receiver<Event>) {
        let (events, happened) = mpsc::channel(4);
        let hooks = Hooks {
            start: Some(start.into()),
            stop: Some(stop.into()),
            time_max: Duration::from_millis(100),
            events,
            running: HashSet::new(),
        };
        (hooks, happened)
    }

    fn ended(happened: &mut Receiver<Event>) -> (Hook, Result<(), String>) {
        match happened.blocking_recv() {
            Some(Event::HookDone { hook, result, .. }) => (hook, result),
            _ => panic!("something else"),
        }
    }

    #[test]
    fn programs_that_end_and_that_fail() {
        let (mut hooks, mut happened) = hooks("true", "false");
        let svr_id: SvrId = "C".parse().unwrap();
        hooks.time_max = TIME_MAX;
        assert_eq!(hooks.run(Hook::Start, svr_id, "sip:c".to_owned()), Ok(()));
        assert_eq!(ended(&mut happened), (Hook::Start, Ok(())));
        hooks.done(svr_id);
        assert_eq!(hooks.run(Hook::Stop, svr_id, "sip:c".to_owned()), Ok(()));
        let (hook, result) = ended(&mut happened);
        assert!(hook == Hook::Stop && result.is_err());
        hooks.done(svr_id);
        hooks.start = Some("/no/such/program".into());
        assert_eq!(hooks.run(Hook::Start, svr_id, "sip:c".to_owned()), Ok(()));
        assert!(ended(&mut happened).1.is_err());
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_no_other_runs_meanwhile() {
        // It says what it is given for ever.
        let (mut hooks, mut happened) = hooks("yes", "true");
        let svr_id: SvrId = "C".parse().unwrap();
        let other: SvrId = "D".parse().unwrap();
        assert_eq!(hooks.run(Hook::Start, svr_id, "sip:c".to_owned()), Ok(()));
        assert!(hooks.run(Hook::Start, svr_id, "sip:c".to_owned()).is_err());
        assert!(hooks.run(Hook::Stop, svr_id, "sip:c".to_owned()).is_err());
        let (hook, result) = ended(&mut happened);
        assert!(hook == Hook::Start && result.unwrap_err().starts_with("killed"));
        hooks.done(svr_id);
        hooks.time_max = TIME_MAX;
        for id in [svr_id, other] {
            assert_eq!(hooks.run(Hook::Stop, id, "sip:c".to_owned()), Ok(()));
        }
        assert_eq!(ended(&mut happened), (Hook::Stop, Ok(())));
        assert_eq!(ended(&mut happened), (Hook::Stop, Ok(())));
    }
}
