//! Writes descriptions, and says what two of them come to.

use std::fmt::Write;

use super::{Agreement, Connection, Description, Local, PORT_NONE, Rejection, Setup, Transport};
use crate::channel::{Role, Token};

/// Our offer. A controlling client offers `Active` (RFC 6230 §4.1).
pub fn offer(local: &Local, setup: Setup) -> String {
    let transport = Transport {
        tls: local.fingerprint.is_some(),
        draft: false,
    };
    let mut sdp = session(local);
    let line = Line {
        transport,
        setup,
        connection: Connection::New,
        cfw_id: local.cfw_id,
    };
    line.write(&mut sdp, local);
    sdp
}

/// Our answer, and what it comes to. `is_connected`: the dialog has a connection already, which may stay.
///
/// # Errors
/// There can be no channel: the INVITE gets [`Rejection::status`], or [`reject`] answers it.
pub fn answer(
    offer: &Description,
    local: &Local,
    is_connected: bool,
) -> Result<(String, Agreement), Rejection> {
    let (setup, role) = match offer.setup.unwrap_or(Setup::Active) {
        Setup::Active => (Setup::Passive, Role::Passive),
        Setup::Passive => (Setup::Active, Role::Active),
        // RFC 6230 §4.1 would have the offerer connect.
        Setup::ActPass if local.port.is_some() => (Setup::Passive, Role::Passive),
        Setup::ActPass => (Setup::Active, Role::Active),
        Setup::HoldConn => return Err(Rejection::Setup),
    };
    let mut agreement = agree(local, offer, role)?;
    // RFC 6230 §4.2
    if agreement.cfw_id.as_str() == offer.cfw_id {
        agreement.cfw_id = other_id(agreement.cfw_id);
    }
    if !is_connected {
        agreement.connection = Connection::New;
    }
    let mut sdp = session(local);
    rejected_media(&mut sdp, &offer.media_before);
    let line = Line {
        transport: offer.transport,
        setup,
        connection: agreement.connection,
        cfw_id: agreement.cfw_id,
    };
    line.write(&mut sdp, local);
    rejected_media(&mut sdp, &offer.media_after);
    Ok((sdp, agreement))
}

/// An answer that takes the dialog but none of its media.
pub fn reject(offer: &Description, local: &Local) -> String {
    let mut sdp = session(local);
    rejected_media(&mut sdp, &offer.media_before);
    let _ = write!(sdp, "m=application 0 {}\r\n", offer.transport.as_str());
    rejected_media(&mut sdp, &offer.media_after);
    sdp
}

/// What the answer to our offer comes to.
///
/// # Errors
/// The peer wants no channel, or one that cannot be.
pub fn accept(local: &Local, offered: Setup, answer: &Description) -> Result<Agreement, Rejection> {
    let role = match (offered, answer.setup.unwrap_or(Setup::Passive)) {
        _ if answer.port == 0 => return Err(Rejection::Rejected),
        (Setup::Active | Setup::ActPass, Setup::Passive) => Role::Active,
        (Setup::Passive | Setup::ActPass, Setup::Active) => Role::Passive,
        _ => return Err(Rejection::Setup),
    };
    agree(local, answer, role)
}

/// What holds for either end.
fn agree(local: &Local, peer: &Description, role: Role) -> Result<Agreement, Rejection> {
    if peer.port == 0 {
        return Err(Rejection::Rejected);
    }
    match (peer.transport.tls, &local.fingerprint) {
        (false, Some(_)) => return Err(Rejection::TlsRequired),
        (true, None) => return Err(Rejection::NoTls),
        (true, Some(_)) if peer.fingerprints.is_empty() => return Err(Rejection::NoFingerprint),
        _ => {}
    }
    match role {
        Role::Active if peer.host.is_none() => return Err(Rejection::NoAddress),
        Role::Passive if local.port.is_none() => return Err(Rejection::Setup),
        _ => {}
    }
    Ok(Agreement {
        role,
        cfw_id: local.cfw_id,
        peer_cfw_id: peer.cfw_id.clone(),
        peer_host: peer.host.clone(),
        peer_port: peer.port,
        tls: peer.transport.tls,
        peer_fingerprints: peer.fingerprints.clone(),
        connection: peer.connection,
    })
}

/// An id as long and as hard to guess.
fn other_id(id: Token) -> Token {
    let (rest, last) = id.as_str().split_at(id.as_str().len() - 1);
    let last = if last == "0" { "1" } else { "0" };
    let other = format!("{rest}{last}");
    other.parse().expect("a digit may end any token")
}

fn session(local: &Local) -> String {
    let Local {
        addr,
        session,
        version,
        ..
    } = local;
    let kind = if addr.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- {session} {version} IN {kind} {addr}\r\ns=-\r\nc=IN {kind} {addr}\r\nt=0 0\r\n"
    )
}

fn rejected_media(sdp: &mut String, media: &[String]) {
    for line in media {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let (media, _) = (words.next().unwrap_or_default(), words.next());
        let rest: Vec<&str> = words.collect();
        let _ = write!(sdp, "m={media} 0 {}\r\n", rest.join(" "));
    }
}

/// The lines of a channel.
struct Line {
    transport: Transport,
    setup: Setup,
    connection: Connection,
    cfw_id: Token,
}

impl Line {
    fn write(&self, sdp: &mut String, local: &Local) {
        let Self {
            transport,
            setup,
            connection,
            cfw_id,
        } = self;
        let port = match setup {
            Setup::Active => PORT_NONE,
            _ => local.port.unwrap_or(PORT_NONE),
        };
        let _ = write!(
            sdp,
            "m=application {port} {}\r\na=setup:{}\r\na=connection:{}\r\na=cfw-id:{cfw_id}\r\n",
            transport.as_str(),
            setup.as_str(),
            connection.as_str(),
        );
        if let Some(fingerprint) = local.fingerprint.as_ref().filter(|_| transport.tls) {
            let _ = write!(sdp, "a=fingerprint:{fingerprint}\r\n");
        }
    }
}
