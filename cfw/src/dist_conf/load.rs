//! `crt-svr-load`: how much a server carries, and how much it can.
//!
//! ```xml
//! <crt-svr-load xmlns="urn:x-msc-dist-conf:1.0" svr-id="A" max-load="500" min-load="50"
//!               state="active" hot="0.43">431</crt-svr-load>
//! ```
//!
//! One load is the SIP messages and media packets handled in a second, weighted; deciding what
//! follows from it is the cluster's business. Only the element by itself is read here, not the
//! request that may carry it.

use std::fmt;
use std::str::FromStr;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;

use super::NAMESPACE;
use crate::svr_id::{SvrId, SvrIdError};

/// Longest document read. The element needs 200 bytes; the rest is room for attributes and
/// namespaces of others.
pub const XML_LEN_MAX: usize = 4 * 1024;

/// One server's load report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SvrLoad {
    pub svr_id: SvrId,
    /// Weighted SIP messages and media packets per second. May exceed `max_load`.
    pub current: u32,
    /// From here on the server is full. Above 0.
    pub max_load: u32,
    /// Below this the server may be drained. Below `max_load`; 0 for never.
    pub min_load: u32,
    pub state: SvrState,
    /// Utilisation of the busiest core, 0 to 1.
    pub hot: Option<f32>,
}

/// Whether a server takes new calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SvrState {
    /// Takes calls. What a report without a state means.
    #[default]
    Active,
    /// At its maximum: new calls are to go elsewhere.
    Full,
    /// Its users are moving away.
    Draining,
    /// Empty and waiting to be added.
    Standby,
}

impl SvrLoad {
    /// The report as an XML element with its namespace.
    pub fn to_xml(&self) -> String {
        let Self {
            svr_id,
            current,
            max_load,
            min_load,
            state,
            hot,
        } = self;
        // Nothing below can hold a character that XML would want escaped.
        let hot = hot.map_or_else(String::new, |hot| format!(r#" hot="{hot}""#));
        format!(
            r#"<crt-svr-load xmlns="{NAMESPACE}" svr-id="{svr_id}" max-load="{max_load}" min-load="{min_load}" state="{state}"{hot}>{current}</crt-svr-load>"#
        )
    }
}

/// Reads one `crt-svr-load` element, in the package's namespace or in none. Attributes unknown
/// here are skipped.
///
/// # Errors
/// The bytes are not XML, or not a report that makes sense.
pub fn parse(xml: &[u8]) -> Result<SvrLoad, LoadError> {
    if xml.len() > XML_LEN_MAX {
        return Err(LoadError::TooLong);
    }
    let xml = str::from_utf8(xml).map_err(|error| LoadError::NotXml(error.to_string()))?;
    let mut reader = NsReader::from_str(xml);
    let (mut load, is_empty) = read_root(&mut reader)?;
    let content = match is_empty {
        true => String::new(),
        false => read_content(&mut reader)?,
    };
    read_epilog(&mut reader)?;
    load.current = content.trim().parse().map_err(|_| LoadError::Content)?;
    Ok(load)
}

/// Why bytes are no load report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// More than [`XML_LEN_MAX`] bytes.
    TooLong,
    /// Not well-formed.
    NotXml(String),
    /// A document type, whose entities could make a small document a big one.
    DocumentType,
    /// The root is another element.
    NotLoad,
    /// An element inside `crt-svr-load` or after it.
    UnexpectedElement,
    MissingAttribute(&'static str),
    /// The attribute of this name has a value it cannot have.
    Attribute(&'static str),
    SvrId(SvrIdError),
    /// The element's content is not a number from 0 to `u32::MAX`.
    Content,
    /// `min-load` is not below `max-load`.
    MinNotBelowMax,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {XML_LEN_MAX} bytes"),
            Self::NotXml(reason) => write!(f, "not well-formed XML: {reason}"),
            Self::DocumentType => f.write_str("document types are not accepted"),
            Self::NotLoad => f.write_str("the element is not crt-svr-load"),
            Self::UnexpectedElement => f.write_str("an element where none may be"),
            Self::MissingAttribute(name) => write!(f, "the attribute {name} is missing"),
            Self::Attribute(name) => write!(f, "the attribute {name} has no valid value"),
            Self::SvrId(error) => write!(f, "the attribute svr-id: {error}"),
            Self::Content => f.write_str("the load is not a number of 32 bits"),
            Self::MinNotBelowMax => f.write_str("min-load is not below max-load"),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<quick_xml::Error> for LoadError {
    fn from(error: quick_xml::Error) -> Self {
        Self::NotXml(error.to_string())
    }
}

/// Reads up to the root element and returns the report without its content, and whether the
/// element ended already.
fn read_root(reader: &mut NsReader<&[u8]>) -> Result<(SvrLoad, bool), LoadError> {
    loop {
        let (namespace, event) = reader.read_resolved_event()?;
        let is_ours = match namespace {
            ResolveResult::Bound(Namespace(namespace)) => namespace == NAMESPACE,
            // A message written by the paper alone has no namespace.
            ResolveResult::Unbound => true,
            ResolveResult::Unknown(_) => false,
        };
        let is_empty = matches!(event, Event::Empty(_));
        match event {
            Event::Start(element) | Event::Empty(element) => {
                if !is_ours || element.local_name().as_ref() != "crt-svr-load" {
                    return Err(LoadError::NotLoad);
                }
                return Ok((read_attributes(&element)?, is_empty));
            }
            Event::Eof => return Err(LoadError::NotXml("no element".to_owned())),
            event => skip_outside(&event)?,
        }
    }
}

/// Reads the text of the element up to its end.
fn read_content(reader: &mut NsReader<&[u8]>) -> Result<String, LoadError> {
    let mut content = String::new();
    loop {
        match reader.read_event()? {
            Event::Text(text) => content.push_str(&text.xml10_content()),
            Event::CData(text) => content.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref()? {
                Some(character) => content.push(character),
                // No entity stands for a digit.
                None => return Err(LoadError::Content),
            },
            Event::Comment(_) | Event::PI(_) => {}
            Event::Start(_) | Event::Empty(_) => return Err(LoadError::UnexpectedElement),
            Event::DocType(_) => return Err(LoadError::DocumentType),
            Event::Decl(_) => return Err(LoadError::NotXml("a late declaration".to_owned())),
            Event::End(_) => return Ok(content),
            Event::Eof => return Err(LoadError::NotXml("the element does not end".to_owned())),
        }
    }
}

fn read_epilog(reader: &mut NsReader<&[u8]>) -> Result<(), LoadError> {
    loop {
        match reader.read_event()? {
            Event::Eof => return Ok(()),
            Event::Start(_) | Event::Empty(_) => return Err(LoadError::UnexpectedElement),
            event => skip_outside(&event)?,
        }
    }
}

/// What may stand before and after the root element.
fn skip_outside(event: &Event<'_>) -> Result<(), LoadError> {
    match event {
        Event::Decl(_) | Event::PI(_) | Event::Comment(_) => Ok(()),
        Event::Text(text) if text.xml10_content().trim().is_empty() => Ok(()),
        Event::DocType(_) => Err(LoadError::DocumentType),
        _ => Err(LoadError::NotXml("text outside the element".to_owned())),
    }
}

fn read_attributes(element: &BytesStart<'_>) -> Result<SvrLoad, LoadError> {
    let mut svr_id = None;
    let mut max_load = None;
    let mut min_load = None;
    let mut state = SvrState::default();
    let mut hot = None;
    for attribute in element.attributes() {
        let attribute = attribute.map_err(quick_xml::Error::from)?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0)?;
        let value = value.trim();
        match attribute.key.as_ref() {
            "svr-id" => svr_id = Some(value.parse().map_err(LoadError::SvrId)?),
            "max-load" => max_load = Some(read_value(value, "max-load")?),
            "min-load" => min_load = Some(read_value(value, "min-load")?),
            "state" => state = read_value(value, "state")?,
            "hot" => hot = Some(read_hot(value)?),
            _ => {}
        }
    }
    let max_load = max_load.ok_or(LoadError::MissingAttribute("max-load"))?;
    let min_load = min_load.ok_or(LoadError::MissingAttribute("min-load"))?;
    // With this, max-load is above 0 too.
    if min_load >= max_load {
        return Err(LoadError::MinNotBelowMax);
    }
    Ok(SvrLoad {
        svr_id: svr_id.ok_or(LoadError::MissingAttribute("svr-id"))?,
        current: 0,
        max_load,
        min_load,
        state,
        hot,
    })
}

fn read_value<T: FromStr>(value: &str, name: &'static str) -> Result<T, LoadError> {
    value.parse().map_err(|_| LoadError::Attribute(name))
}

fn read_hot(value: &str) -> Result<f32, LoadError> {
    let hot = read_value(value, "hot")?;
    match (0.0..=1.0).contains(&hot) {
        true => Ok(hot),
        false => Err(LoadError::Attribute("hot")),
    }
}

impl SvrState {
    pub const ALL: [Self; 4] = [Self::Active, Self::Full, Self::Draining, Self::Standby];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Standby => "standby",
        }
    }
}

impl fmt::Display for SvrState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is none of the four states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownState;

impl fmt::Display for UnknownState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a server state is active, full, draining or standby")
    }
}

impl std::error::Error for UnknownState {}

impl FromStr for SvrState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(UnknownState)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load() -> SvrLoad {
        SvrLoad {
            svr_id: "A".parse().unwrap(),
            current: 431,
            max_load: 500,
            min_load: 50,
            state: SvrState::Active,
            hot: None,
        }
    }

    #[test]
    fn written_as_the_package_says() {
        let hot = SvrLoad {
            state: SvrState::Draining,
            hot: Some(0.43),
            ..load()
        };
        assert_eq!(
            hot.to_xml(),
            "<crt-svr-load xmlns=\"urn:x-msc-dist-conf:1.0\" svr-id=\"A\" max-load=\"500\" \
             min-load=\"50\" state=\"draining\" hot=\"0.43\">431</crt-svr-load>"
        );
    }

    fn check(xml: &str, expected: Result<SvrLoad, LoadError>) {
        assert_eq!(parse(xml.as_bytes()), expected, "{xml}");
    }

    #[test]
    fn reports_as_others_write_them() {
        let full = SvrLoad {
            state: SvrState::Full,
            hot: Some(1.0),
            ..load()
        };
        for (xml, expected) in [
            (
                // By the paper alone: no namespace, no state.
                r#"<crt-svr-load svr-id="A" min-load="50" max-load="500">431</crt-svr-load>"#,
                load(),
            ),
            (
                "<?xml version='1.0' encoding='UTF-8'?>\r\n<!-- each second -->\
                 <d:crt-svr-load xmlns:d='urn:x-msc-dist-conf:1.0' xmlns:x='urn:other' svr-id='A' \
                 x:state='odd' max-load=' 500 ' min-load='&#53;0' parts='4' state='full' hot='1'>\n \
                 4<!-- 9 -->3<![CDATA[1]]>\n</d:crt-svr-load>\n<!-- end -->\n",
                full,
            ),
        ] {
            check(xml, Ok(expected));
        }
    }

    #[test]
    fn reports_that_make_no_sense() {
        let with = |attributes: &str, content: &str| {
            format!(r#"<crt-svr-load xmlns="{NAMESPACE}" {attributes}>{content}</crt-svr-load>"#)
        };
        let limits = r#"svr-id="A" max-load="500" min-load="50""#;
        for (xml, error) in [
            (with(limits, ""), LoadError::Content),
            (with(limits, "-1"), LoadError::Content),
            (with(limits, "4294967296"), LoadError::Content),
            (with(limits, "1&lt;2"), LoadError::Content),
            (with(limits, "1<b/>"), LoadError::UnexpectedElement),
            (
                format!("{}<crt-svr-load/>", with(limits, "1")),
                LoadError::UnexpectedElement,
            ),
            (
                with(r#"svr-id="A" max-load="50" min-load="50""#, "1"),
                LoadError::MinNotBelowMax,
            ),
            (
                with(r#"svr-id="A" max-load="0" min-load="0""#, "1"),
                LoadError::MinNotBelowMax,
            ),
            (
                with(r#"svr-id="A" max-load="500""#, "1"),
                LoadError::MissingAttribute("min-load"),
            ),
            (
                with(r#"svr-id="A" min-load="5""#, "1"),
                LoadError::MissingAttribute("max-load"),
            ),
            (
                with(r#"max-load="500" min-load="50""#, "1"),
                LoadError::MissingAttribute("svr-id"),
            ),
            (
                with(r#"svr-id="a b" max-load="500" min-load="50""#, "1"),
                LoadError::SvrId(SvrIdError::Character(' ')),
            ),
            (
                with(&format!(r#"{limits} state="busy""#), "1"),
                LoadError::Attribute("state"),
            ),
            (
                with(&format!(r#"{limits} hot="1.1""#), "1"),
                LoadError::Attribute("hot"),
            ),
            (
                with(&format!(r#"{limits} hot="NaN""#), "1"),
                LoadError::Attribute("hot"),
            ),
            (
                format!(r#"<crt-svr-load xmlns="urn:other" {limits}>1</crt-svr-load>"#),
                LoadError::NotLoad,
            ),
            (
                format!(r#"<x:crt-svr-load {limits}>1</x:crt-svr-load>"#),
                LoadError::NotLoad,
            ),
            (
                format!(r#"<crt-load xmlns="{NAMESPACE}" {limits}>1</crt-load>"#),
                LoadError::NotLoad,
            ),
            (
                format!("<!DOCTYPE x [<!ENTITY e \"1\">]>{}", with(limits, "&e;")),
                LoadError::DocumentType,
            ),
            (with(limits, &" ".repeat(XML_LEN_MAX)), LoadError::TooLong),
        ] {
            check(&xml, Err(error));
        }
    }

    #[test]
    fn what_is_not_xml() {
        let whole = load().to_xml();
        let doubled = whole.replace("min-load", "max-load");
        let entity = whole.replace("\"A\"", "\"&name;\"");
        let stray = format!("{whole}stray");
        let mut texts: Vec<&str> = (0..whole.len()).map(|end| &whole[..end]).collect();
        texts.extend([doubled.as_str(), entity.as_str(), stray.as_str()]);
        for text in texts {
            let result = parse(text.as_bytes());
            assert!(
                matches!(result, Err(LoadError::NotXml(_))),
                "{text}: {result:?}"
            );
        }
        assert!(matches!(parse(b"\xff"), Err(LoadError::NotXml(_))));
    }

    fn any_load() -> impl Strategy<Value = SvrLoad> {
        let limits = (0..u32::MAX).prop_flat_map(|min| (Just(min), min + 1..=u32::MAX));
        (
            "[A-Za-z0-9._-]{1,32}",
            any::<u32>(),
            limits,
            prop::sample::select(&SvrState::ALL),
            prop::option::of(0.0..=1.0_f32),
        )
            .prop_map(|(id, current, (min_load, max_load), state, hot)| SvrLoad {
                svr_id: id.parse().unwrap(),
                current,
                max_load,
                min_load,
                state,
                hot,
            })
    }

    proptest! {
        #[test]
        fn written_and_read_again(load in any_load()) {
            prop_assert_eq!(parse(load.to_xml().as_bytes()), Ok(load));
        }

        #[test]
        fn spoiled_reports_never_panic(
            load in any_load(),
            spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut xml = load.to_xml().into_bytes();
            for (place, byte) in spoils {
                let place = place.index(xml.len());
                xml[place] = byte;
            }
            if let Ok(read) = parse(&xml) {
                prop_assert_eq!(parse(read.to_xml().as_bytes()), Ok(read));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
