//! A document as a tree of its elements, and the text that may stand in one.
//!
//! Only what is the package's, or nobody's, gets into the tree: elements of foreign namespaces and
//! attributes with a prefix are stepped over.

use std::fmt;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;

use super::{DEPTH_MAX, ELEMENTS_MAX, NAMESPACE};

/// An element.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    /// Names without a prefix, and normalised values.
    attributes: Vec<(String, String)>,
    pub(super) children: Vec<Self>,
    /// Its own, without that of its children.
    pub(super) text: String,
}

/// Why bytes are no XML, or none that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// More bytes than are read.
    TooLong,
    NotUtf8,
    /// Not well-formed.
    NotXml,
    /// A document type, whose entities could make a small document a big one.
    DocumentType,
    /// Elements nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// More elements than [`ELEMENTS_MAX`].
    TooMany,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "too long",
            Self::NotUtf8 => "not in UTF-8",
            Self::NotXml => "not well-formed XML",
            Self::DocumentType => "document types are not accepted",
            Self::TooDeep => "elements nested too deep",
            Self::TooMany => "too many elements",
        })
    }
}

impl std::error::Error for Malformed {}

/// Reads a document; None if its root is of a foreign namespace.
pub(super) fn parse(document: &[u8], len_max: usize) -> Result<Option<Node>, Malformed> {
    if document.len() > len_max {
        return Err(Malformed::TooLong);
    }
    let text = str::from_utf8(document).map_err(|_| Malformed::NotUtf8)?;
    if !text.chars().all(is_xml) {
        return Err(Malformed::NotXml);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = NsReader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    Builder::default().build(&mut reader)
}

/// Puts a tree together.
#[derive(Default)]
struct Builder {
    /// Elements that have not ended, the root first; None for those of others and what is in them.
    open: Vec<Option<Node>>,
    /// The root, once it has ended.
    root: Option<Option<Node>>,
    elements: usize,
}

impl Builder {
    fn build(mut self, reader: &mut NsReader<&[u8]>) -> Result<Option<Node>, Malformed> {
        loop {
            let event = reader.read_resolved_event();
            let (namespace, event) = event.map_err(|_| Malformed::NotXml)?;
            let is_ours = match namespace {
                ResolveResult::Bound(Namespace(namespace)) => namespace == NAMESPACE,
                // A message written by the paper alone has no namespace.
                ResolveResult::Unbound => true,
                ResolveResult::Unknown(_) => false,
            };
            match event {
                Event::Start(start) => self.start(&start, is_ours)?,
                Event::End(_) => self.end()?,
                Event::Eof => match self.root {
                    Some(root) if self.open.is_empty() => return Ok(root),
                    _ => return Err(Malformed::NotXml),
                },
                Event::DocType(_) => return Err(Malformed::DocumentType),
                event => match self.open.last_mut() {
                    Some(Some(element)) => add_text(&mut element.text, &event)?,
                    Some(None) => add_text(&mut String::new(), &event)?,
                    None => skip_outside(&event)?,
                },
            }
        }
    }

    fn start(&mut self, start: &BytesStart<'_>, is_ours: bool) -> Result<(), Malformed> {
        self.elements += 1;
        if self.root.is_some() {
            return Err(Malformed::NotXml);
        }
        if self.open.len() == DEPTH_MAX {
            return Err(Malformed::TooDeep);
        }
        if self.elements > ELEMENTS_MAX {
            return Err(Malformed::TooMany);
        }
        let attributes = attributes(start)?;
        let is_wanted = is_ours && self.open.last().is_none_or(Option::is_some);
        self.open.push(is_wanted.then(|| Node {
            name: start.local_name().into_inner().to_owned(),
            attributes,
            ..Node::default()
        }));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Malformed> {
        let ended = self.open.pop().ok_or(Malformed::NotXml)?;
        match (self.open.last_mut(), ended) {
            (None, root) => self.root = Some(root),
            (Some(Some(parent)), Some(child)) => parent.children.push(child),
            _ => {}
        }
        Ok(())
    }
}

fn attributes(start: &BytesStart<'_>) -> Result<Vec<(String, String)>, Malformed> {
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_| Malformed::NotXml)?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|_| Malformed::NotXml)?;
        // By a character reference any character could get in.
        if !value.chars().all(is_xml) || attribute.value.contains('<') {
            return Err(Malformed::NotXml);
        }
        let name = attribute.key.as_ref();
        if name != "xmlns" && !name.contains(':') {
            attributes.push((name.to_owned(), value.into_owned()));
        }
    }
    Ok(attributes)
}

fn add_text(text: &mut String, event: &Event<'_>) -> Result<(), Malformed> {
    match event {
        Event::Text(more) => text.push_str(&more.xml10_content()),
        Event::CData(more) => text.push_str(&more.xml10_content()),
        Event::GeneralRef(reference) => {
            let character = reference.resolve_char_ref();
            let character = match character.map_err(|_| Malformed::NotXml)? {
                Some(character) => character,
                None => match &**reference {
                    "lt" => '<',
                    "gt" => '>',
                    "amp" => '&',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => return Err(Malformed::NotXml),
                },
            };
            if !is_xml(character) {
                return Err(Malformed::NotXml);
            }
            text.push(character);
        }
        Event::Comment(_) | Event::PI(_) => {}
        _ => return Err(Malformed::NotXml),
    }
    Ok(())
}

/// What may stand before and after the root.
fn skip_outside(event: &Event<'_>) -> Result<(), Malformed> {
    match event {
        Event::Decl(_) | Event::PI(_) | Event::Comment(_) => Ok(()),
        Event::Text(text) if trim(&text.xml10_content()).is_empty() => Ok(()),
        _ => Err(Malformed::NotXml),
    }
}

impl Node {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        let (_, value) = attributes.find(|(known, _)| known == name)?;
        Some(value)
    }
}

/// Without XML's white space at the ends.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

/// Whether XML 1.0 lets the character stand in a document (§2.2).
fn is_xml(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => true,
        '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => false,
        _ => true,
    }
}

/// Writes ` name="value"`. What XML cannot hold becomes U+FFFD.
pub(super) fn push_attribute(xml: &mut String, name: &str, value: &str) {
    xml.push(' ');
    xml.push_str(name);
    xml.push_str("=\"");
    for character in value.chars() {
        match character {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            // As they are, a reader would take them for spaces.
            '\t' => xml.push_str("&#9;"),
            '\n' => xml.push_str("&#10;"),
            '\r' => xml.push_str("&#13;"),
            character if is_xml(character) => xml.push(character),
            _ => xml.push(char::REPLACEMENT_CHARACTER),
        }
    }
    xml.push('"');
}
