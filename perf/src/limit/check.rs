//! Options that cannot be measured, told before anything is.

use std::fs;
use std::thread;

use super::{Kind, LimitError, Options};
use crate::process;

/// Descriptors besides the sockets: standard streams, epoll sets, the ring.
const OTHERS: u64 = 32;

/// Raises the limit of descriptors, too, to what the sockets need.
///
/// # Errors
/// The first that is wrong.
pub(super) fn options(options: &Options) -> Result<(), LimitError> {
    let refused = |reason: String| Err(LimitError::Options(reason));
    if options.callers == 0 || options.caller_sockets == 0 {
        return refused("there is nobody to send".to_owned());
    }
    if options.seconds == 0 || options.runs == 0 {
        return refused("nothing is measured in no time".to_owned());
    }
    if options.core == options.peer_core {
        return refused(
            "--core and --peer-core are the same: callers would be measured too".to_owned(),
        );
    }
    for (name, core) in [("--core", options.core), ("--peer-core", options.peer_core)] {
        // On a thread of its own: this one goes on where it is.
        let pinned = thread::spawn(move || process::pin(core)).join();
        if !matches!(pinned, Ok(Ok(()))) {
            return refused(format!("{name} {core}: no such processor, or not ours"));
        }
    }
    let descriptors = process::raise_descriptor_limit()?;
    let sockets = sockets(options);
    if let Some(limit) = descriptors.filter(|&limit| sockets + OTHERS > limit) {
        return refused(format!(
            "{sockets} sockets are needed, and only {limit} files may be open (ulimit -Hn)"
        ));
    }
    if let Some(ports) = ports().filter(|&ports| sockets > ports) {
        return refused(format!(
            "{sockets} sockets are needed, and the kernel hands out {ports} ports (ip_local_port_range)"
        ));
    }
    Ok(())
}

/// On both sides, in the measurement that has the most.
fn sockets(options: &Options) -> u64 {
    if options.only == Some(Kind::Segments) {
        return 2;
    }
    (options.callers + options.caller_sockets.min(options.callers)) as u64
}

/// How many ports the kernel chooses from; None where it does not say.
fn ports() -> Option<u64> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.trim().parse().ok()?);
    Some(last.checked_sub(first)? + 1)
}
