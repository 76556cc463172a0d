//! What the operating system must allow before a shard can start, checked first so that the operator
//! reads one line instead of a panic.

use std::fmt;

use glommio::{LocalExecutorBuilder, Placement};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Locked memory glommio insists on for its rings.
const MEMLOCK_MIN: u64 = 512 << 10;

/// The kernel's switch for io_uring: 0 for all, 1 for the privileged, 2 for nobody.
const IO_URING_SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";

/// What stands in the way, and how to get it out of the way.
#[derive(Debug, PartialEq, Eq)]
pub enum Forbidden {
    Memlock { limit: u64 },
    IoUring { switch: String, reason: String },
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memlock { limit } => write!(
                f,
                "the limit on locked memory (RLIMIT_MEMLOCK) is {limit} bytes and io_uring needs {MEMLOCK_MIN}: \
                 raise it with `ulimit -l 8192`, `LimitMEMLOCK=8M` in a systemd unit, or `memlock` in /etc/security/limits.conf"
            ),
            Self::IoUring { switch, reason } => write!(
                f,
                "the kernel forbids io_uring ({reason}): set `sysctl kernel.io_uring_disabled=0` (now {switch}), \
                 and allow the io_uring system calls in the container's seccomp profile"
            ),
        }
    }
}

/// Raises what may be raised and checks the rest.
///
/// # Errors
/// What the system forbids.
pub fn prepare() -> Result<(), Forbidden> {
    let memlock = raise(Resource::Memlock);
    if memlock < MEMLOCK_MIN {
        return Err(Forbidden::Memlock { limit: memlock });
    }
    // Two descriptors per participant.
    let descriptors = raise(Resource::Nofile);
    tracing::debug!(memlock, descriptors, "limits");
    // The surest check is the thing itself.
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(64 << 10)
        .make()
        .map(drop)
        .map_err(|error| {
            let switch =
                std::fs::read_to_string(IO_URING_SWITCH).unwrap_or_else(|_| "unknown".to_owned());
            Forbidden::IoUring {
                switch: switch.trim().to_owned(),
                reason: error.to_string(),
            }
        })
}

/// Lifts the soft limit to the hard one; gives what holds afterwards.
fn raise(resource: Resource) -> u64 {
    let Rlimit { current, maximum } = getrlimit(resource);
    if current != maximum
        && setrlimit(
            resource,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
        .is_err()
    {
        return current.unwrap_or(u64::MAX);
    }
    maximum.unwrap_or(u64::MAX)
}
