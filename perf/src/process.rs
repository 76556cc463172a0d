//! What a process has used, as `/proc` tells.

use std::io;
use std::time::Duration;

/// CPU time and memory of a process at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: u64,
}

/// # Errors
/// There is no such process, or `/proc` does not say.
pub(crate) fn usage(pid: u32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let unreadable = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat cannot be read"),
        )
    };
    // The name, in parentheses, may hold anything; fields are counted behind it (proc_pid_stat(5)).
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .ok_or_else(unreadable)?
        .1
        .split_whitespace()
        .collect();
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|field| field.parse::<u64>().ok())
            .ok_or_else(unreadable)
    };
    let ticks = field(14)? + field(15)?;
    let resident_pages = field(24)?;
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64),
        resident_bytes: resident_pages * rustix::param::page_size() as u64,
    })
}

/// Keeps this thread on one processor.
///
/// # Errors
/// There is no such processor, or it is not ours.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    use rustix::thread::CpuSet;
    if core >= CpuSet::MAX_CPU {
        return Err(rustix::io::Errno::INVAL.into());
    }
    let mut cpus = CpuSet::new();
    cpus.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &cpus)?)
}

/// Allows as many open files as the system lets us have; returns how many, None if there is no limit.
///
/// # Errors
/// The system says no.
pub(crate) fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.maximum)
}

#[cfg(test)]
mod tests {
    #[test]
    fn our_own_usage_is_known() {
        let usage = super::usage(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 100_000);
        assert!(super::usage(u32::MAX).is_err());
    }
}
