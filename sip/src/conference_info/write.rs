//! Writes documents: no white space between elements, children in the order of the schema
//! (RFC 4575 §7).

use std::fmt::Write;

use super::{
    Conference, ConferenceState, Description, Endpoint, Media, NAMESPACE, State, Timestamp, User,
};

impl Conference {
    /// The whole as a full document.
    pub fn to_xml(&self, version: u32) -> String {
        let mut xml = head(&self.entity, State::Full, version);
        description(&mut xml, &self.description);
        state(&mut xml, &self.state);
        users(&mut xml, State::Full);
        for user in &self.users {
            full_user(&mut xml, user);
        }
        users_end(&mut xml);
        xml.push_str(END);
        xml
    }
}

/// What ends every document.
pub(super) const END: &str = "</conference-info>";

/// A document up to the first child of its root.
pub(super) fn head(entity: &str, state: State, version: u32) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<conference-info xmlns=\"{NAMESPACE}\""
    );
    attribute(&mut xml, "entity", entity);
    attribute(&mut xml, "state", state.as_str());
    attribute(&mut xml, "version", &version.to_string());
    xml.push('>');
    xml
}

/// Also when there is nothing in it: a full document has to have one.
pub(super) fn description(xml: &mut String, description: &Description) {
    xml.push_str("<conference-description>");
    optional(xml, "display-text", description.display_text.as_deref());
    if !description.uris.is_empty() {
        xml.push_str("<conf-uris>");
        for uri in &description.uris {
            xml.push_str("<entry>");
            element(xml, "uri", uri);
            xml.push_str("<purpose>participation</purpose></entry>");
        }
        xml.push_str("</conf-uris>");
    }
    number(xml, "maximum-user-count", description.maximum_user_count);
    if !description.available_media.is_empty() {
        xml.push_str("<available-media>");
        for media in &description.available_media {
            xml.push_str("<entry");
            attribute(xml, "label", &media.label);
            xml.push('>');
            element(xml, "type", &media.kind);
            optional(xml, "status", media.status.map(|status| status.as_str()));
            xml.push_str("</entry>");
        }
        xml.push_str("</available-media>");
    }
    xml.push_str("</conference-description>");
}

pub(super) fn state(xml: &mut String, state: &ConferenceState) {
    xml.push_str("<conference-state>");
    number(xml, "user-count", state.user_count);
    let word = |flag: bool| if flag { "true" } else { "false" };
    optional(xml, "active", state.active.map(word));
    optional(xml, "locked", state.locked.map(word));
    xml.push_str("</conference-state>");
}

pub(super) fn users(xml: &mut String, state: State) {
    xml.push_str("<users");
    attribute(xml, "state", state.as_str());
    xml.push('>');
}

pub(super) fn users_end(xml: &mut String) {
    xml.push_str("</users>");
}

/// A user with all endpoints, for full and partial documents.
pub(super) fn full_user(xml: &mut String, user: &User) {
    user_start(xml, user, State::Full);
    for endpoint in &user.endpoints {
        self::endpoint(xml, endpoint, State::Full);
    }
    user_end(xml);
}

/// A user up to the first endpoint.
pub(super) fn user_start(xml: &mut String, user: &User, state: State) {
    keyed(xml, "user", &user.entity, state);
    optional(xml, "display-text", user.display_text.as_deref());
}

pub(super) fn user_end(xml: &mut String) {
    xml.push_str("</user>");
}

pub(super) fn deleted_user(xml: &mut String, entity: &str) {
    keyed(xml, "user", entity, State::Deleted);
    user_end(xml);
}

pub(super) fn deleted_endpoint(xml: &mut String, entity: &str) {
    keyed(xml, "endpoint", entity, State::Deleted);
    xml.push_str("</endpoint>");
}

/// An endpoint with all there is to it, whatever `state` says.
pub(super) fn endpoint(xml: &mut String, endpoint: &Endpoint, state: State) {
    keyed(xml, "endpoint", &endpoint.entity, state);
    optional(xml, "display-text", endpoint.display_text.as_deref());
    optional(xml, "status", endpoint.status.map(|status| status.as_str()));
    let method = endpoint.joining_method;
    optional(xml, "joining-method", method.map(|method| method.as_str()));
    let joining = &endpoint.joining;
    execution(
        xml,
        "joining-info",
        joining.when,
        joining.reason.as_deref(),
        joining.by.as_deref(),
    );
    if let Some(end) = &endpoint.disconnection {
        let method = end.method.map(|method| method.as_str());
        optional(xml, "disconnection-method", method);
        let (reason, by) = (end.reason.as_deref(), end.by.as_deref());
        execution(xml, "disconnection-info", end.when, reason, by);
    }
    for media in &endpoint.media {
        self::media(xml, media);
    }
    xml.push_str("</endpoint>");
}

fn media(xml: &mut String, media: &Media) {
    xml.push_str("<media");
    attribute(xml, "id", &media.id);
    xml.push('>');
    optional(xml, "type", media.kind.as_deref());
    optional(xml, "label", media.label.as_deref());
    number(xml, "src-id", media.src_id);
    optional(xml, "status", media.status.map(|status| status.as_str()));
    xml.push_str("</media>");
}

/// The schema's execution-type; nothing where nothing is known.
fn execution(
    xml: &mut String,
    name: &str,
    when: Option<Timestamp>,
    reason: Option<&str>,
    by: Option<&str>,
) {
    if when.is_none() && reason.is_none() && by.is_none() {
        return;
    }
    let _ = write!(xml, "<{name}>");
    if let Some(when) = when {
        let _ = write!(xml, "<when>{when}</when>");
    }
    optional(xml, "reason", reason);
    optional(xml, "by", by);
    let _ = write!(xml, "</{name}>");
}

/// The start of an element that can be partial.
fn keyed(xml: &mut String, name: &str, entity: &str, state: State) {
    xml.extend(["<", name]);
    attribute(xml, "entity", entity);
    attribute(xml, "state", state.as_str());
    xml.push('>');
}

fn attribute(xml: &mut String, name: &str, value: &str) {
    xml.extend([" ", name, "=\""]);
    escape(xml, value);
    xml.push('"');
}

fn element(xml: &mut String, name: &str, content: &str) {
    xml.extend(["<", name, ">"]);
    escape(xml, content);
    xml.extend(["</", name, ">"]);
}

fn optional(xml: &mut String, name: &str, content: Option<&str>) {
    if let Some(content) = content {
        element(xml, name, content);
    }
}

fn number(xml: &mut String, name: &str, number: Option<u32>) {
    if let Some(number) = number {
        element(xml, name, &number.to_string());
    }
}

/// Good for text and for attributes, whose line ends and tabs a reader would take for spaces.
/// What XML cannot say even escaped becomes a replacement character.
fn escape(xml: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            '\t' => xml.push_str("&#9;"),
            '\n' => xml.push_str("&#10;"),
            '\r' => xml.push_str("&#13;"),
            c if is_xml(c) => xml.push(c),
            _ => xml.push('\u{fffd}'),
        }
    }
}

/// The production Char of XML 1.0.
pub(super) const fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
