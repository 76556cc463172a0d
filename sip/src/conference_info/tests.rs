//! Documents as they are to be, to the letter; and that any sequence of them tells what the roster
//! says.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

mod documents;
mod sequences;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn audio(src_id: u32, status: MediaStatus) -> Media {
    Media {
        id: "1".to_owned(),
        kind: some("audio"),
        label: some("main"),
        src_id: Some(src_id),
        status: Some(status),
    }
}

fn alice() -> User {
    User {
        entity: "sip:alice@example.com".to_owned(),
        display_text: some("Alice <\"A&B\">"),
        endpoints: vec![Endpoint {
            entity: "sip:alice@192.0.2.1:5060;transport=tcp".to_owned(),
            display_text: None,
            status: Some(Status::Connected),
            joining_method: Some(JoiningMethod::DialedIn),
            joining: Joining {
                when: Some(Timestamp::from_unix(1_109_966_400)),
                ..Joining::default()
            },
            disconnection: None,
            media: vec![audio(432_424, MediaStatus::SendRecv)],
        }],
    }
}

fn user(entity: &str, endpoints: &[(&str, Status)]) -> User {
    let endpoint = |&(entity, status): &(&str, Status)| Endpoint {
        entity: entity.to_owned(),
        status: Some(status),
        ..Endpoint::default()
    };
    User {
        entity: entity.to_owned(),
        display_text: None,
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn description() -> Description {
    Description {
        display_text: some("Lobby"),
        uris: vec!["sip:lobby@example.com".to_owned()],
        maximum_user_count: Some(500),
        available_media: vec![AvailableMedia {
            label: "main".to_owned(),
            kind: "audio".to_owned(),
            status: Some(MediaStatus::SendRecv),
        }],
    }
}

fn roster() -> Roster {
    Roster::new("sip:lobby@example.com".to_owned(), description())
}

/// A clock that stands still.
fn epoch() -> Instant {
    Instant::now()
}
