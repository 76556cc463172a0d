//! Quoted strings (RFC 3261 §25.1) and lists of `name=value` made of them.

use std::borrow::Cow;
use std::fmt;

/// Most parameters of a header looked at; real ones have about ten.
const PARAMETERS_MAX: usize = 32;

/// Walks over `name=value, name="value"`. Empty elements are skipped, spaces may stand anywhere
/// between tokens, and a bare value may hold anything but spaces, commas and quotes, since phones
/// forget to quote.
pub(super) struct Parameters<'a> {
    rest: &'a str,
    taken: usize,
}

/// The list breaks its grammar or has too many elements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadParameter;

impl<'a> Parameters<'a> {
    pub(super) fn of(list: &'a str) -> Self {
        Self {
            rest: list,
            taken: 0,
        }
    }

    fn take(&mut self) -> Result<(&'a str, Cow<'a, str>), BadParameter> {
        self.taken += 1;
        if self.taken > PARAMETERS_MAX {
            return Err(BadParameter);
        }
        let (name, rest) = self.rest.split_once('=').ok_or(BadParameter)?;
        let name = name.trim_end_matches(is_space);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(BadParameter);
        }
        let rest = rest.trim_start_matches(is_space);
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted).ok_or(BadParameter)?,
            None => bare(rest)?,
        };
        self.rest = rest.trim_start_matches(is_space);
        if self.rest.is_empty() || self.rest.starts_with(',') {
            Ok((name, value))
        } else {
            Err(BadParameter)
        }
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(&'a str, Cow<'a, str>), BadParameter>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches(|c| is_space(c) || c == ',');
        (!self.rest.is_empty()).then(|| self.take())
    }
}

/// Folded lines have been unfolded when a message was taken apart.
pub(super) fn is_space(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&octet)
}

/// No quoted string holds control characters, nor can line ends be smuggled in by escaping them.
pub(super) fn is_quotable(c: char) -> bool {
    !c.is_ascii_control() || c == '\t'
}

/// The text up to the closing quote, without escapes, and what follows the quote.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut unescaped: Option<String> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let c = match c {
            '"' => {
                let value = unescaped.map_or(Cow::Borrowed(&text[..at]), Cow::Owned);
                return Some((value, &text[at + 1..]));
            }
            '\\' => {
                unescaped.get_or_insert_with(|| text[..at].to_owned());
                chars.next()?.1
            }
            other => other,
        };
        if !is_quotable(c) {
            return None;
        }
        if let Some(unescaped) = &mut unescaped {
            unescaped.push(c);
        }
    }
    None
}

fn bare(text: &str) -> Result<(Cow<'_, str>, &str), BadParameter> {
    let end = text.find(|c| is_space(c) || c == ',').unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    if value.contains(|c: char| c == '"' || c.is_ascii_control()) {
        return Err(BadParameter);
    }
    Ok((Cow::Borrowed(value), rest))
}

/// Writes a value as a quoted string.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        let mut rest = self.0;
        while let Some(at) = rest.find(['"', '\\']) {
            write!(f, "{}\\{}", &rest[..at], &rest[at..=at])?;
            rest = &rest[at + 1..];
        }
        write!(f, "{rest}\"")
    }
}
