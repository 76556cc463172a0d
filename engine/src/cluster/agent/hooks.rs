//! Programs of the operator's that start and stop servers.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use cfw::SvrId;
use tokio::sync::mpsc::Sender;

use super::connection::Event;
use crate::cluster::Hook;

/// Runs the program on a thread of its own, with the server's name and the URI of its control channel as
/// arguments. What it writes to its standard error goes to ours.
pub(super) fn run(
    events: Sender<Event>,
    hook: Hook,
    program: Option<PathBuf>,
    svr_id: SvrId,
    uri: String,
) {
    let Some(program) = program else {
        return;
    };
    let work = move || {
        tracing::info!(program = %program.display(), %svr_id, "running");
        let status = Command::new(&program)
            .args([svr_id.as_str(), &uri])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        let result = match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(status.to_string()),
            Err(error) => Err(error.to_string()),
        };
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
    if let Err(error) = thread::Builder::new().name("hook".to_owned()).spawn(work) {
        tracing::error!(%error, "no thread for a program");
    }
}
