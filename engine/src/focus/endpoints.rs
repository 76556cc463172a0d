//! Calls as the conference event package shows them (RFC 4575 §5.7).

use cfw::dist_conf::message::{ConfUser, UserStatus};
use sip::conference_info::{Endpoint, Joining, JoiningMethod, Media, MediaStatus, Status};

use super::Means;
use super::call::{Call, Phase};
use crate::io::MediaIo;
use crate::room::Leg;

/// The label of the one medium there is.
pub(super) const AUDIO: &str = "audio";

/// How a call stands; `leg` is there once it has joined.
pub(super) fn status_of(call: &Call, leg: Option<&Leg>) -> Status {
    let spoken_to = leg.is_some_and(|leg| leg.spoken_to);
    match &call.phase {
        Phase::Calling { alerting: false } => Status::DialingOut,
        Phase::Calling { alerting: true } => Status::Alerting,
        Phase::Ringing { .. } | Phase::Offering => Status::DialingIn,
        Phase::Joined { .. } if !call.confirmed => Status::DialingIn,
        Phase::Joined { .. } if !call.is_let_in() => Status::Pending,
        Phase::Joined { .. } if !spoken_to => Status::OnHold,
        Phase::Joined { .. } if call.muted => Status::MutedViaFocus,
        Phase::Joined { .. } => Status::Connected,
    }
}

/// One that is here. Two calls of one user differ only in their names.
pub(super) fn endpoint<I: MediaIo>(call: &Call, name: &str, means: &mut Means<'_, I>) -> Endpoint {
    let member = means.stage.member(call.seat);
    let leg = member.as_ref().map(|member| member.leg());
    let (heard, spoken_to) = leg.map_or((false, false), |leg| (leg.heard, leg.spoken_to));
    let status = status_of(call, leg);
    // As the endpoint sees it: it sends what we hear.
    let direction = match (heard, spoken_to) {
        (true, true) => MediaStatus::SendRecv,
        (true, false) => MediaStatus::SendOnly,
        (false, true) => MediaStatus::RecvOnly,
        (false, false) => MediaStatus::Inactive,
    };
    let joining_method = match call.dialled {
        Some(_) => JoiningMethod::DialedOut,
        None => JoiningMethod::DialedIn,
    };
    Endpoint {
        entity: format!("{};endpoint={name}", call.entity),
        status: Some(status),
        joining_method: Some(joining_method),
        joining: Joining {
            when: Some(call.joined.into()),
            reason: None,
            by: call.dialled.as_ref().and_then(|dialled| dialled.by.clone()),
        },
        // His own is not told: phones choose theirs as they like, and two may choose the same.
        media: audio(member.map(|member| member.session().ssrc()), direction),
        ..Endpoint::default()
    }
}

/// One that another server, or another shard, has told of.
pub(super) fn distant_endpoint(user: &ConfUser, name: &str) -> Endpoint {
    let status = match user.status {
        UserStatus::Connected => Status::Connected,
        UserStatus::Disconnected => Status::Disconnected,
        UserStatus::OnHold => Status::OnHold,
        UserStatus::MutedViaFocus => Status::MutedViaFocus,
        UserStatus::Pending => Status::Pending,
        UserStatus::Alerting => Status::Alerting,
        UserStatus::DialingIn => Status::DialingIn,
        UserStatus::DialingOut => Status::DialingOut,
        UserStatus::Disconnecting => Status::Disconnecting,
    };
    // Who has joined and does not hold hears and is heard.
    let direction = match user.status {
        UserStatus::Connected | UserStatus::MutedViaFocus | UserStatus::Pending => {
            MediaStatus::SendRecv
        }
        UserStatus::OnHold => MediaStatus::SendOnly,
        _ => MediaStatus::Inactive,
    };
    Endpoint {
        entity: format!("{};endpoint={name}", user.entity),
        status: Some(status),
        joining: Joining {
            when: user.joined.map(Into::into),
            ..Joining::default()
        },
        media: audio(user.ssrc, direction),
        ..Endpoint::default()
    }
}

fn audio(src_id: Option<u32>, direction: MediaStatus) -> Vec<Media> {
    vec![Media {
        id: "1".to_owned(),
        kind: Some(AUDIO.to_owned()),
        label: Some(AUDIO.to_owned()),
        src_id,
        status: Some(direction),
    }]
}
