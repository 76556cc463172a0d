//! Answers that have to wait for something: who is owed one, and until when.

use std::time::{Duration, Instant};

use cfw::dist_conf::message::{OpResult, Response};

use super::Cluster;
use super::interface::{ChannelId, Output, RequestId};

/// Peers' requests that wait for something, such as a phone that rings.
pub(super) const DEFERRED_MAX: usize = 1_000;
pub(super) const DEFERRED_FOR: Duration = Duration::from_secs(30);

/// Who waits for what becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Nobody,
    Operator(u64),
    /// Key in [`Cluster::deferred`].
    Peer(u64),
}

/// A peer's request that is not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Deferred {
    pub(super) channel: ChannelId,
    pub(super) id: RequestId,
    pub(super) seq: u64,
    pub(super) results: Vec<OpResult>,
    pub(super) waits: usize,
    pub(super) until: Instant,
}

/// What became of an operation: known, or known later.
pub(super) enum Outcome {
    Now(OpResult),
    /// [`Cluster::answer`] tells.
    Later,
}

impl Cluster {
    /// What became of an operation that somebody waits for.
    pub(super) fn answer(&mut self, asker: Asker, result: OpResult) {
        match asker {
            Asker::Nobody => {}
            Asker::Operator(id) => self.outputs.push_back(Output::Answered {
                id,
                status: as_http(result.status),
                reason: result.op,
            }),
            Asker::Peer(key) => {
                let Some(deferred) = self.deferred.get_mut(&key) else {
                    return;
                };
                deferred.results.push(result);
                deferred.waits -= 1;
                if deferred.waits == 0 {
                    self.respond_deferred(key);
                }
            }
        }
    }

    fn respond_deferred(&mut self, key: u64) {
        let Some(deferred) = self.deferred.remove(&key) else {
            return;
        };
        let failed = deferred.results.iter().find(|result| result.status != 200);
        let status = match (failed, deferred.waits) {
            (Some(failed), _) => failed.status,
            (None, 0) => 200,
            (None, _) => 510,
        };
        self.outputs.push_back(Output::Respond {
            channel: deferred.channel,
            id: deferred.id,
            response: Response {
                svr_id: Some(self.config.svr_id),
                seq: deferred.seq,
                status,
                reason: None,
                results: deferred.results,
                conf_info: None,
                load: None,
            },
        });
    }

    /// Each second: what has waited too long is answered with 510.
    pub(super) fn expire_deferred(&mut self, now: Instant) {
        let is_late = |(_, deferred): &(&u64, &Deferred)| now >= deferred.until;
        let late: Vec<u64> = self
            .deferred
            .iter()
            .filter(is_late)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            self.respond_deferred(key);
        }
    }
}

/// What HTTP has for a status of the package.
fn as_http(status: u16) -> u16 {
    match status {
        420 => 404,
        510 => 504,
        511 => 503,
        status => status,
    }
}
