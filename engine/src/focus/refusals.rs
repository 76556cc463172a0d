//! Callers whom the focus refuses without asking the cluster, which keeps the reasons all the same.

use std::time::{Duration, Instant};

use sip::{Invite, Rejection};

use super::liaison::Report;
use super::{Focus, RoomName};

/// Refusals that are told in a second, each by itself; more are counted and told with a later one, so that a
/// flood of them costs the cluster nothing.
const TOLD_PER_SECOND: u32 = 10;

#[derive(Default)]
pub(super) struct Refusals {
    since: Option<Instant>,
    told: u32,
    untold: u32,
}

impl Refusals {
    /// Whether one more is told: then for how many others as well.
    fn next(&mut self, now: Instant) -> Option<u32> {
        let is_over = |since: Instant| now >= since + Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            self.since = Some(now);
            self.told = 0;
        }
        if self.told == TOLD_PER_SECOND {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

/// Who is refused, and where.
pub(super) struct Refused {
    room: Option<RoomName>,
    from: String,
}

impl Refused {
    pub(super) fn of(invite: &Invite) -> Self {
        Self {
            room: invite.room_user.as_deref().and_then(RoomName::from_user),
            from: invite.from_uri.clone(),
        }
    }
}

impl Focus {
    /// A caller is refused. `busy` is why, if it is that there is no place for him.
    pub(super) fn tell_refusal(
        &mut self,
        now: Instant,
        refused: Refused,
        rejection: &Rejection,
        busy: &str,
    ) {
        let status = rejection.status();
        let quoted = |warning: &str| Some(warning.split('"').nth(1)?.to_owned());
        let warning = rejection.values("Warning").find_map(quoted);
        let why = match (status, warning) {
            // He is only asked who he is.
            (401 | 407, _) => return,
            (_, Some(warning)) => warning,
            (404, _) => "there is no such room".to_owned(),
            (486, _) => "the room has as many participants as it may".to_owned(),
            (503, _) => busy.to_owned(),
            _ => "the call is not possible".to_owned(),
        };
        let (Some(room), true) = (refused.room, self.reports.is_on()) else {
            return;
        };
        if let Some(others) = self.refusals.next(now) {
            self.reports.push(Report::Refused {
                room,
                from: refused.from,
                status,
                why,
                others,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_sum() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        let told: Vec<_> = (0..100).filter_map(|_| refusals.next(now)).collect();
        assert_eq!(told, [0; TOLD_PER_SECOND as usize]);
        let later = now + Duration::from_secs(1);
        let told: Vec<_> = (0..2).filter_map(|_| refusals.next(later)).collect();
        assert_eq!(told, [90, 0]);
    }
}
