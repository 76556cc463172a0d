//! Elements of one namespace, read one after another; what belongs to others is stepped over.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;

use super::ReadError;
use super::write::is_xml;

/// Deepest nesting, of others' elements too.
const DEPTH_MAX: usize = 32;

pub(super) struct Xml<'a> {
    reader: NsReader<&'a [u8]>,
    namespace: &'static str,
}

/// The start of an element.
pub(super) struct Start<'a> {
    tag: BytesStart<'a>,
}

impl<'a> Xml<'a> {
    /// Reads up to the root, which has to be of the namespace.
    pub(super) fn new(
        document: &'a [u8],
        namespace: &'static str,
    ) -> Result<(Self, Start<'a>), ReadError> {
        let text = str::from_utf8(document).map_err(|_| ReadError::NotXml)?;
        if !text.chars().all(is_xml) {
            return Err(ReadError::NotXml);
        }
        let mut reader = NsReader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
        reader.config_mut().expand_empty_elements = true;
        let mut xml = Self { reader, namespace };
        loop {
            match xml.event()? {
                (true, Event::Start(tag)) => return Ok((xml, Start { tag })),
                (false, Event::Start(_)) => return Err(ReadError::NotConferenceInfo),
                (_, event) => skip_outside(&event)?,
            }
        }
    }

    /// Calls `visit` with every child of an element that has been entered. It must read the child
    /// to its end, with one of the methods here.
    pub(super) fn children(
        &mut self,
        mut visit: impl FnMut(&mut Self, Start<'a>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        loop {
            match self.event()? {
                (true, Event::Start(tag)) => visit(self, Start { tag })?,
                (false, Event::Start(_)) => self.skip()?,
                (_, Event::End(_)) => return Ok(()),
                // Between elements there is nothing to be read.
                (_, event) => drop(text_of(&event)?),
            }
        }
    }

    /// The text of an element that has been entered, without what its children hold.
    pub(super) fn text(&mut self) -> Result<String, ReadError> {
        let mut text = String::new();
        loop {
            match self.event()? {
                (_, Event::Start(_)) => self.skip()?,
                (_, Event::End(_)) => return Ok(text),
                (_, event) => text.push_str(&text_of(&event)?),
            }
        }
    }

    /// Reads an element that has been entered to its end.
    pub(super) fn skip(&mut self) -> Result<(), ReadError> {
        let mut depth = 1;
        while depth > 0 {
            match self.event()?.1 {
                Event::Start(_) if depth == DEPTH_MAX => return Err(ReadError::TooMany),
                Event::Start(_) => depth += 1,
                Event::End(_) => depth -= 1,
                event => drop(text_of(&event)?),
            }
        }
        Ok(())
    }

    /// Nothing may follow the root's end.
    pub(super) fn finish(mut self) -> Result<(), ReadError> {
        loop {
            match self.event()?.1 {
                Event::Eof => return Ok(()),
                event => skip_outside(&event)?,
            }
        }
    }

    /// The next event, and whether its element is of the namespace.
    fn event(&mut self) -> Result<(bool, Event<'a>), ReadError> {
        let namespace = self.namespace;
        let (resolved, event) = self
            .reader
            .read_resolved_event()
            .map_err(|_| ReadError::NotXml)?;
        let is_ours =
            matches!(resolved, ResolveResult::Bound(Namespace(bound)) if bound == namespace);
        Ok((is_ours, event))
    }
}

impl Start<'_> {
    pub(super) fn name(&self) -> &str {
        self.tag.local_name().into_inner()
    }

    /// The value of an attribute without a namespace, trimmed.
    pub(super) fn attribute(&self, name: &str) -> Result<Option<String>, ReadError> {
        let mut found = None;
        // To the last, for it is no XML if one is there twice.
        for attribute in self.tag.attributes() {
            let attribute = attribute.map_err(|_| ReadError::NotXml)?;
            if attribute.key.as_ref() == name {
                found = Some(attribute);
            }
        }
        let Some(attribute) = found else {
            return Ok(None);
        };
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|_| ReadError::NotXml)?;
        match value.chars().all(is_xml) {
            true => Ok(Some(trim(&value).to_owned())),
            false => Err(ReadError::NotXml),
        }
    }
}

/// Without XML's white space at the ends.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

/// Text that an event adds to its element.
fn text_of(event: &Event<'_>) -> Result<String, ReadError> {
    match event {
        Event::Text(text) => Ok(text.xml10_content().into_owned()),
        Event::CData(text) => Ok(text.xml10_content().into_owned()),
        Event::GeneralRef(reference) => {
            let character = reference.resolve_char_ref();
            let character = match character.map_err(|_| ReadError::NotXml)? {
                Some(character) => character,
                None => match &**reference {
                    "lt" => '<',
                    "gt" => '>',
                    "amp" => '&',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => return Err(ReadError::NotXml),
                },
            };
            match is_xml(character) {
                true => Ok(character.to_string()),
                false => Err(ReadError::NotXml),
            }
        }
        Event::Comment(_) | Event::PI(_) => Ok(String::new()),
        // Among others the end of the document; entities could make a small document a big one.
        _ => Err(ReadError::NotXml),
    }
}

/// What may stand before and after the root.
fn skip_outside(event: &Event<'_>) -> Result<(), ReadError> {
    match event {
        Event::Decl(_) | Event::PI(_) | Event::Comment(_) => Ok(()),
        Event::Text(text) if trim(&text.xml10_content()).is_empty() => Ok(()),
        _ => Err(ReadError::NotXml),
    }
}
