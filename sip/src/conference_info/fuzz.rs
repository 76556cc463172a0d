//! What must hold for any bytes that come as a document: the body of a fuzz target. A broken promise
//! panics.

use super::{Conference, Endpoint, ReadError, Replica, State, User, read};

/// Reads the bytes as the first document of a subscription, and as one that changes a conference.
pub fn document(bytes: &[u8]) {
    let Ok(mut document) = read(bytes) else {
        return;
    };
    let mut first = Replica::default();
    if first.apply(document.clone()).is_ok()
        && let Some(conference) = first.conference()
    {
        check_rewrite(conference);
    }
    let mut second = Replica::default();
    apply(
        &mut second,
        conference(&document.entity).to_xml(1).as_bytes(),
    );
    document.state = State::Partial;
    document.version = Some(2);
    if second.apply(document).is_ok() {
        second.conference().into_iter().for_each(check_rewrite);
    }
}

/// Written and read again, a conference is the same, unless escapes made it too long.
fn check_rewrite(conference: &Conference) {
    let xml = conference.to_xml(1);
    match read(xml.as_bytes()) {
        Ok(document) => {
            let mut replica = Replica::default();
            assert!(replica.apply(document).is_ok(), "{xml}");
            assert_eq!(replica.conference(), Some(conference), "{xml}");
        }
        Err(error) => assert_eq!(error, ReadError::TooLong, "{xml}"),
    }
}

fn apply(replica: &mut Replica, xml: &[u8]) {
    if let Ok(document) = read(xml) {
        let _ = replica.apply(document);
    }
}

fn conference(entity: &str) -> Conference {
    let user = |name: &str| User {
        entity: name.to_owned(),
        display_text: Some(name.to_owned()),
        endpoints: vec![Endpoint {
            entity: name.to_owned(),
            ..Endpoint::default()
        }],
    };
    Conference {
        entity: entity.to_owned(),
        users: vec![user("sip:a@h"), user("sip:b@h")],
        ..Conference::default()
    }
}
