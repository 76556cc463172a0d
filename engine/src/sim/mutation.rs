//! Rules broken on purpose, to see that the simulation notices.

use crate::focus::liaison::{Order, Report, Verdict, Wish};

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
    /// Everybody forgets users who are there, when all is calm and long agreed upon.
    ForgetTheHere,
    /// Whoever is to go to another server is hung up on.
    HangUpInsteadOfMoving,
    /// A conference's sound is shared with each other server once, and never again.
    ShareOnce,
    /// Whoever is to be refused gets in.
    RefuseNobody,
    /// Nobody gets in whom the rules are asked about.
    RefuseEverybody,
}

impl Mutation {
    /// Those that are broken.
    pub(super) const BROKEN: [Self; 8] = [
        Self::SendOnTheHopped,
        Self::OneEpoch,
        Self::ForgetTheGone,
        Self::ForgetTheHere,
        Self::HangUpInsteadOfMoving,
        Self::ShareOnce,
        Self::RefuseNobody,
        Self::RefuseEverybody,
    ];

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

    /// What the focus hears of what the rules order; `is_first`: no trunk of this room to this server was
    /// opened before.
    pub(super) fn order(self, order: Order, is_first: bool) -> Option<Order> {
        match (self, order) {
            (Self::HangUpInsteadOfMoving, Order::Move { room, endpoint, .. }) => {
                let what = Wish::End("moved".to_owned());
                Some(Order::Wish {
                    room,
                    endpoint,
                    what,
                })
            }
            (Self::ShareOnce, Order::OpenTrunk { .. }) if !is_first => None,
            (Self::RefuseNobody, Order::Placed { call, verdict }) => {
                let verdict = match verdict {
                    Verdict::Refuse { .. } => Verdict::Accept,
                    other => other,
                };
                Some(Order::Placed { call, verdict })
            }
            (Self::RefuseEverybody, Order::Placed { call, .. }) => {
                let verdict = Verdict::Refuse {
                    status: 503,
                    retry_after_s: 1,
                };
                Some(Order::Placed { call, verdict })
            }
            (_, order) => Some(order),
        }
    }
}
