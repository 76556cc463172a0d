//! `crt-svr-load`: how much a server carries, and how much it can.
//!
//! ```xml
//! <crt-svr-load xmlns="urn:x-msc-dist-conf:1.0" svr-id="A" max-load="500" min-load="50"
//!               state="active" hot="0.43">431</crt-svr-load>
//! ```
//!
//! One load is the SIP messages and media packets handled in a second, weighted; deciding what
//! follows from it is the cluster's business. [`parse`] reads the element by itself; the request that may
//! carry it is read by [`super::read()`].

use std::fmt;
use std::str::FromStr;

use super::NAMESPACE;
use super::xml::{self, Malformed, Node, push_attribute, trim};
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
        let mut xml = String::new();
        write(&mut xml, self, Some(NAMESPACE));
        xml
    }
}

/// Writes the element, with a namespace if that of its parent is another.
pub(super) fn write(xml: &mut String, load: &SvrLoad, namespace: Option<&str>) {
    xml.push_str("<crt-svr-load");
    if let Some(namespace) = namespace {
        push_attribute(xml, "xmlns", namespace);
    }
    push_attribute(xml, "svr-id", load.svr_id.as_str());
    push_attribute(xml, "max-load", &load.max_load.to_string());
    push_attribute(xml, "min-load", &load.min_load.to_string());
    push_attribute(xml, "state", load.state.as_str());
    if let Some(hot) = load.hot.filter(|hot| (0.0..=1.0).contains(hot)) {
        push_attribute(xml, "hot", &hot.to_string());
    }
    xml.push('>');
    xml.push_str(&load.current.to_string());
    xml.push_str("</crt-svr-load>");
}

/// Reads one `crt-svr-load` element, in the package's namespace or in none. Attributes and elements unknown
/// here are skipped.
///
/// # Errors
/// The bytes are not XML, or not a report that makes sense.
pub fn parse(xml: &[u8]) -> Result<SvrLoad, LoadError> {
    let root = xml::parse(xml, XML_LEN_MAX).map_err(LoadError::Malformed)?;
    match &root {
        Some(root) if root.name == "crt-svr-load" => read(root),
        _ => Err(LoadError::NotLoad),
    }
}

/// Why bytes are no load report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Not XML, or more than [`XML_LEN_MAX`] bytes.
    Malformed(Malformed),
    /// The root is another element.
    NotLoad,
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
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::NotLoad => f.write_str("the element is not crt-svr-load"),
            Self::MissingAttribute(name) => write!(f, "the attribute {name} is missing"),
            Self::Attribute(name) => write!(f, "the attribute {name} has no valid value"),
            Self::SvrId(error) => write!(f, "the attribute svr-id: {error}"),
            Self::Content => f.write_str("the load is not a number of 32 bits"),
            Self::MinNotBelowMax => f.write_str("min-load is not below max-load"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads the element, once it is known to be one.
pub(super) fn read(element: &Node) -> Result<SvrLoad, LoadError> {
    let svr_id = required(element, "svr-id")?;
    let max_load = read_value(required(element, "max-load")?, "max-load")?;
    let min_load = read_value(required(element, "min-load")?, "min-load")?;
    let state = element.attribute("state").map(trim);
    let hot = element.attribute("hot").map(trim);
    // With this, max-load is above 0 too.
    if min_load >= max_load {
        return Err(LoadError::MinNotBelowMax);
    }
    Ok(SvrLoad {
        svr_id: svr_id.parse().map_err(LoadError::SvrId)?,
        current: trim(&element.text)
            .parse()
            .map_err(|_| LoadError::Content)?,
        max_load,
        min_load,
        state: match state {
            Some(state) => read_value(state, "state")?,
            None => SvrState::default(),
        },
        hot: hot.map(read_hot).transpose()?,
    })
}

fn required<'a>(element: &'a Node, name: &'static str) -> Result<&'a str, LoadError> {
    let value = element.attribute(name).map(trim);
    value.ok_or(LoadError::MissingAttribute(name))
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
                 4<!-- 9 -->3<x:y>8</x:y><![CDATA[1]]><z/>\n</d:crt-svr-load>\n<!-- end -->\n",
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
            (
                format!("{}<crt-svr-load/>", with(limits, "1")),
                LoadError::Malformed(Malformed::NotXml),
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
                LoadError::Malformed(Malformed::DocumentType),
            ),
            (
                with(limits, &" ".repeat(XML_LEN_MAX)),
                LoadError::Malformed(Malformed::TooLong),
            ),
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
                result == Err(LoadError::Malformed(Malformed::NotXml)),
                "{text}: {result:?}"
            );
        }
        let result = parse(b"\xff");
        assert_eq!(result, Err(LoadError::Malformed(Malformed::NotUtf8)));
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
