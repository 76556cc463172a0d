//! Names as the framework's grammar has them.

use std::fmt;
use std::str::FromStr;

/// A transaction id, a package's name or a dialog's id (RFC 6230 §9.1): 4 to 32 of `A-Z a-z 0-9 . - + % = /`,
/// the first a letter or digit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Zeros after the token.
    bytes: [u8; Self::LEN_MAX],
    len: u8,
}

impl Token {
    pub const LEN_MIN: usize = 4;
    pub const LEN_MAX: usize = 32;

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)])
            .expect("from_str, the only constructor, lets ASCII in only")
    }

    /// Whether both name the same package: case does not matter (RFC 6230 §9.1).
    pub fn names_same(&self, other: &Self) -> bool {
        self.as_str().eq_ignore_ascii_case(other.as_str())
    }
}

/// The text is no [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoToken;

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let is_length = (Self::LEN_MIN..=Self::LEN_MAX).contains(&text.len());
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b".-+%=/".contains(&byte);
        if !is_length || !text.as_bytes()[0].is_ascii_alphanumeric() || !text.bytes().all(is_token)
        {
            return Err(NoToken);
        }
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self {
            bytes,
            len: text.len() as u8,
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 4 to 32 of A-Z a-z 0-9 . - + % = / with a letter or digit at first")
    }
}

impl std::error::Error for NoToken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_token() {
        let longest = "x".repeat(32);
        let too_long = "x".repeat(33);
        for (text, is_token) in [
            ("a81f03c9", true),
            ("msc-dist-conf/1.0", true),
            ("0+%=", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("abc", false),
            ("", false),
            ("-abc", false),
            ("ab_cd", false),
            ("ab cd", false),
            ("äbcd", false),
        ] {
            let token = text.parse::<Token>();
            assert_eq!(token.is_ok(), is_token, "{text}");
            assert!(token.is_err() || token.unwrap().as_str() == text);
        }
    }
}
