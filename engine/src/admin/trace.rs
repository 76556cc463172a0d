//! `/api/v1/trace`: SIP messages as the shards recorded them, a line of JSON each, for as long as
//! somebody reads.
//!
//! Whoever is slow to read asks the shards less often and misses what was overwritten meanwhile: nothing
//! waits for him but his own connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures_lite::{Stream, stream};
use tokio::time::{Instant, sleep, timeout_at};

use super::ShardQueries;
use crate::meters::Meters;
use crate::trace::{Filter, Line, SipMessage, Watch};

/// Longest that a client may ask to be told; it can ask again.
pub(super) const SECONDS_MAX: u64 = 86_400;

/// Between two questions to the shards.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// Time for the shards to answer; what one did not say it is asked again.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// Longest that a client is told, after its time, what was recorded before.
const REST_TIME_MAX: Duration = Duration::from_secs(10);

/// An empty line after this long without a message: a client that has gone is noticed by writing to it.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(5);

/// One client's view.
pub(super) struct Trace {
    shards: Arc<dyn ShardQueries>,
    meters: Arc<Meters>,
    filter: Filter,
    until: Option<Instant>,
    /// Where each shard is to go on; None: with what it remembers.
    cursors: Vec<Option<u64>>,
    last_written: Instant,
    /// When the shards are to be asked again.
    next: Instant,
    ended: bool,
    _watch: Watch,
}

impl Trace {
    /// Ends after `lasting`; None: when the client does.
    pub(super) fn new(
        shards: Arc<dyn ShardQueries>,
        meters: Arc<Meters>,
        filter: Filter,
        lasting: Option<Duration>,
        watch: Watch,
    ) -> Self {
        let now = Instant::now();
        Self {
            shards,
            cursors: vec![None; meters.cores.len()],
            meters,
            filter,
            until: lasting.map(|lasting| now + lasting),
            last_written: now,
            next: now,
            ended: false,
            _watch: watch,
        }
    }

    pub(super) fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut trace| async move {
            let lines = trace.next_lines().await?;
            Some((Ok(lines), trace))
        })
    }

    async fn next_lines(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            let wake = self.until.map_or(self.next, |until| until.min(self.next));
            sleep(wake.saturating_duration_since(Instant::now())).await;
            let now = Instant::now();
            let (mut lines, more) = self.ask(now).await;
            self.ended = self
                .until
                .is_some_and(|until| now >= until && (!more || now >= until + REST_TIME_MAX));
            self.next = if more { now } else { now + ASK_INTERVAL };
            if lines.is_empty() && now >= self.last_written + SIGN_OF_LIFE_INTERVAL {
                lines.push(b'\n');
            }
            if !lines.is_empty() {
                self.last_written = now;
                return Some(lines.into());
            }
        }
    }

    /// One round of questions; true: some shard has more to say at once.
    async fn ask(&mut self, now: Instant) -> (Vec<u8>, bool) {
        let answers = self.shards.trace(&self.cursors);
        let mut lines = Vec::new();
        let mut more = false;
        for (shard, answer) in answers.into_iter().enumerate() {
            // Too slow, or its mailbox is full.
            let Ok(Ok(mut batch)) = timeout_at(now + ANSWER_TIME_MAX, answer).await else {
                continue;
            };
            let (Some(cursor), Some(core)) =
                (self.cursors.get_mut(shard), self.meters.cores.get(shard))
            else {
                continue;
            };
            *cursor = Some(batch.next);
            more |= batch.more;
            let core = core.core;
            if batch.missed > 0 {
                let messages = batch.missed;
                write(&mut lines, &Line::Missed { core, messages });
            }
            self.filter.retain(&mut batch.records);
            for record in &batch.records {
                write(&mut lines, &Line::Message(SipMessage::new(core, record)));
            }
        }
        (lines, more)
    }
}

fn write(lines: &mut Vec<u8>, line: &Line) {
    // Strings and numbers always have a JSON form; writing to memory does not fail.
    if let Ok(json) = simd_json::to_vec(line) {
        lines.extend_from_slice(&json);
        lines.push(b'\n');
    }
}
