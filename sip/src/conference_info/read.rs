//! Reads documents as far as they concern users and how they are connected. Elements and values
//! unknown here are stepped over, for the schema is open.

use std::fmt;
use std::str::FromStr;

use super::model::words;
use super::xml::{Start, Xml, trim};
use super::{
    AvailableMedia, ConferenceState, Description, Disconnection, DisconnectionMethod,
    ENDPOINTS_MAX, Endpoint, Joining, JoiningMethod, MEDIA_MAX, Media, MediaStatus, NAMESPACE,
    Status, Timestamp, USERS_MAX,
};

/// Longest document read: a user takes some 600 bytes.
pub const XML_LEN_MAX: usize = 4 * 1024 * 1024;

words! {
    /// What an element is to what the reader knows already (RFC 4575 §4.4).
    State {
        /// It takes the place of what is known.
        Full = "full",
        /// It adds to what is known, and changes it.
        Partial = "partial",
        /// What it describes is no more.
        Deleted = "deleted",
    }
}

/// A document as it is, before it is applied to what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The conference's URI.
    pub entity: String,
    pub state: State,
    /// Counts the documents of a subscription (RFC 4575 §5.2).
    pub version: Option<u32>,
    pub description: Option<Description>,
    pub conference_state: Option<ConferenceState>,
    /// How the list of users is meant, and the users; None without an element `users`.
    pub users: Option<(State, Vec<UserUpdate>)>,
}

/// An element `user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserUpdate {
    pub state: State,
    pub entity: String,
    pub display_text: Option<String>,
    pub endpoints: Vec<EndpointUpdate>,
}

/// An element `endpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUpdate {
    pub state: State,
    pub endpoint: Endpoint,
}

/// Why bytes are no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// More than [`XML_LEN_MAX`] bytes.
    TooLong,
    /// Not well-formed, or with a document type.
    NotXml,
    /// The root is another element.
    NotConferenceInfo,
    /// More users, endpoints, media, URIs or nested elements than are accepted.
    TooMany,
    /// An element without the attribute that is its key.
    NoKey,
    /// A `state` or `version` that is none.
    Attribute,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "too long",
            Self::NotXml => "not well-formed XML, or with a document type",
            Self::NotConferenceInfo => "the root element is not conference-info",
            Self::TooMany => "too many elements",
            Self::NoKey => "an element without its key",
            Self::Attribute => "bad state or version",
        })
    }
}

impl std::error::Error for ReadError {}

/// Reads a document.
///
/// # Errors
/// The bytes are not XML, no document of this kind, or too much.
pub fn read(document: &[u8]) -> Result<Document, ReadError> {
    if document.len() > XML_LEN_MAX {
        return Err(ReadError::TooLong);
    }
    let (mut xml, root) = Xml::new(document, NAMESPACE)?;
    if root.name() != "conference-info" {
        return Err(ReadError::NotConferenceInfo);
    }
    let version = root.attribute("version")?.map(|version| version.parse());
    let mut document = Document {
        entity: key(&root, "entity")?,
        state: state(&root)?,
        version: version.transpose().map_err(|_| ReadError::Attribute)?,
        description: None,
        conference_state: None,
        users: None,
    };
    xml.children(|xml, child| {
        match child.name() {
            "conference-description" => document.description = Some(description(xml)?),
            "conference-state" => document.conference_state = Some(conference_state(xml)?),
            "users" => document.users = Some((state(&child)?, users(xml)?)),
            _ => xml.skip()?,
        }
        Ok(())
    })?;
    xml.finish()?;
    Ok(document)
}

/// Full is what the schema takes an absent state for.
fn state(start: &Start<'_>) -> Result<State, ReadError> {
    match start.attribute("state")? {
        Some(word) => State::from_word(&word).ok_or(ReadError::Attribute),
        None => Ok(State::Full),
    }
}

fn key(start: &Start<'_>, name: &str) -> Result<String, ReadError> {
    start.attribute(name)?.ok_or(ReadError::NoKey)
}

fn description(xml: &mut Xml<'_>) -> Result<Description, ReadError> {
    let mut description = Description::default();
    xml.children(|xml, child| {
        match child.name() {
            "display-text" => description.display_text = Some(xml.text()?),
            "maximum-user-count" => description.maximum_user_count = value(xml)?,
            "conf-uris" => xml.children(|xml, entry| match entry.name() {
                "entry" => {
                    let uri = uri_of_entry(xml)?;
                    uri.map_or(Ok(()), |uri| push(&mut description.uris, uri, MEDIA_MAX))
                }
                _ => xml.skip(),
            })?,
            "available-media" => xml.children(|xml, entry| match entry.name() {
                "entry" => {
                    let media = available_media(xml, key(&entry, "label")?)?;
                    push(&mut description.available_media, media, MEDIA_MAX)
                }
                _ => xml.skip(),
            })?,
            _ => xml.skip()?,
        }
        Ok(())
    })?;
    Ok(description)
}

/// Only URIs that take part; others are for watching or recording.
fn uri_of_entry(xml: &mut Xml<'_>) -> Result<Option<String>, ReadError> {
    let (mut uri, mut is_for_joining) = (None, true);
    xml.children(|xml, child| {
        match child.name() {
            "uri" => uri = Some(token(xml)?),
            "purpose" => is_for_joining = token(xml)? == "participation",
            _ => xml.skip()?,
        }
        Ok(())
    })?;
    Ok(uri.filter(|_| is_for_joining))
}

fn available_media(xml: &mut Xml<'_>, label: String) -> Result<AvailableMedia, ReadError> {
    let mut media = AvailableMedia {
        label,
        kind: String::new(),
        status: None,
    };
    xml.children(|xml, child| {
        match child.name() {
            "type" => media.kind = token(xml)?,
            "status" => media.status = MediaStatus::from_word(&token(xml)?),
            _ => xml.skip()?,
        }
        Ok(())
    })?;
    Ok(media)
}

fn conference_state(xml: &mut Xml<'_>) -> Result<ConferenceState, ReadError> {
    let mut state = ConferenceState::default();
    xml.children(|xml, child| {
        match child.name() {
            "user-count" => state.user_count = value(xml)?,
            "active" => state.active = flag(&token(xml)?),
            "locked" => state.locked = flag(&token(xml)?),
            _ => xml.skip()?,
        }
        Ok(())
    })?;
    Ok(state)
}

fn users(xml: &mut Xml<'_>) -> Result<Vec<UserUpdate>, ReadError> {
    let mut users = Vec::new();
    xml.children(|xml, child| match child.name() {
        "user" => {
            let mut user = UserUpdate {
                state: state(&child)?,
                entity: key(&child, "entity")?,
                display_text: None,
                endpoints: Vec::new(),
            };
            xml.children(|xml, child| {
                match child.name() {
                    "display-text" => user.display_text = Some(xml.text()?),
                    "endpoint" => {
                        let update = EndpointUpdate {
                            state: state(&child)?,
                            endpoint: endpoint(xml, key(&child, "entity")?)?,
                        };
                        push(&mut user.endpoints, update, ENDPOINTS_MAX)?;
                    }
                    _ => xml.skip()?,
                }
                Ok(())
            })?;
            push(&mut users, user, USERS_MAX)
        }
        _ => xml.skip(),
    })?;
    Ok(users)
}

fn endpoint(xml: &mut Xml<'_>, entity: String) -> Result<Endpoint, ReadError> {
    let mut endpoint = Endpoint {
        entity,
        ..Endpoint::default()
    };
    xml.children(|xml, child| {
        match child.name() {
            "display-text" => endpoint.display_text = Some(xml.text()?),
            "status" => endpoint.status = Status::from_word(&token(xml)?),
            "joining-method" => endpoint.joining_method = JoiningMethod::from_word(&token(xml)?),
            "joining-info" => endpoint.joining = joining(xml)?,
            "disconnection-method" => {
                let method = DisconnectionMethod::from_word(&token(xml)?);
                disconnection(&mut endpoint).method = method;
            }
            "disconnection-info" => {
                let info = joining(xml)?;
                let end = disconnection(&mut endpoint);
                (end.when, end.reason, end.by) = (info.when, info.reason, info.by);
            }
            "media" => {
                let media = media(xml, key(&child, "id")?)?;
                push(&mut endpoint.media, media, MEDIA_MAX)?;
            }
            _ => xml.skip()?,
        }
        Ok(())
    })?;
    // Told in words that are unknown here.
    if endpoint.disconnection == Some(Disconnection::default()) {
        endpoint.disconnection = None;
    }
    Ok(endpoint)
}

fn disconnection(endpoint: &mut Endpoint) -> &mut Disconnection {
    endpoint.disconnection.get_or_insert_default()
}

/// Reads any execution-type, which is what joining and disconnection share.
fn joining(xml: &mut Xml<'_>) -> Result<Joining, ReadError> {
    let mut info = Joining::default();
    xml.children(|xml, child| {
        match child.name() {
            "when" => info.when = value::<Timestamp>(xml)?,
            "reason" => info.reason = Some(xml.text()?),
            "by" => info.by = Some(token(xml)?),
            _ => xml.skip()?,
        }
        Ok(())
    })?;
    Ok(info)
}

fn media(xml: &mut Xml<'_>, id: String) -> Result<Media, ReadError> {
    let mut media = Media {
        id,
        ..Media::default()
    };
    xml.children(|xml, child| {
        match child.name() {
            "type" => media.kind = Some(token(xml)?),
            "label" => media.label = Some(token(xml)?),
            "src-id" => media.src_id = value(xml)?,
            "status" => media.status = MediaStatus::from_word(&token(xml)?),
            _ => xml.skip()?,
        }
        Ok(())
    })?;
    Ok(media)
}

fn token(xml: &mut Xml<'_>) -> Result<String, ReadError> {
    Ok(trim(&xml.text()?).to_owned())
}

/// None where the text is no such value.
fn value<T: FromStr>(xml: &mut Xml<'_>) -> Result<Option<T>, ReadError> {
    Ok(token(xml)?.parse().ok())
}

/// The lexical forms of XML Schema's boolean.
fn flag(word: &str) -> Option<bool> {
    match word {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn push<T>(list: &mut Vec<T>, item: T, max: usize) -> Result<(), ReadError> {
    if list.len() == max {
        return Err(ReadError::TooMany);
    }
    list.push(item);
    Ok(())
}
