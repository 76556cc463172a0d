//! Rules broken on purpose, to see that the simulation notices.

use crate::focus::liaison::Report;

/// What is broken in every server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mutation {
    #[default]
    None,
    /// Whoever was sent here is sent on.
    SendOnTheHopped,
    /// Every life of a server has the same epoch.
    OneEpoch,
    /// Nobody hears of users who leave.
    ForgetTheGone,
}

impl Mutation {
    /// Those that are broken.
    pub(super) const BROKEN: [Self; 3] =
        [Self::SendOnTheHopped, Self::OneEpoch, Self::ForgetTheGone];

    pub(super) fn epoch(self, epoch: u64) -> u64 {
        match self {
            Self::OneEpoch => 1,
            _ => epoch,
        }
    }

    /// What the rules hear of what the focus says.
    pub(super) fn report(self, report: Report) -> Option<Report> {
        match (self, report) {
            (Self::SendOnTheHopped, Report::Asked { call, mut asked }) => {
                asked.hopped = false;
                Some(Report::Asked { call, asked })
            }
            (Self::ForgetTheGone, Report::UserGone { .. }) => None,
            (_, report) => Some(report),
        }
    }
}
