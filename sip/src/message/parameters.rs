//! Parameters behind an address or a hop: `;name=value;name` (RFC 3261 §25.1, generic-param).

/// Splits what follows the first semicolon at those outside quotes. An empty parameter is two empty
/// words; a parameter without a value has an empty one.
pub(crate) fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return c == ';' && !quoted,
        }
        false
    })
    .map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (name.trim(), value.trim())
    })
}

/// The value of the first parameter of this name, empty where it has none.
pub(crate) fn parameter<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    parameters(text)
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value)
}

/// A token (RFC 3261 §25.1).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_quotes_separate_nothing() {
        let text = "a = \"x;\\\";tag=no\" ;; lr;TAG=yes";
        let expected = [
            ("a", "\"x;\\\";tag=no\""),
            ("", ""),
            ("lr", ""),
            ("TAG", "yes"),
        ];
        assert!(parameters(text).eq(expected));
        assert_eq!(parameter(text, "tag"), Some("yes"));
        assert_eq!(parameter(text, "none"), None);
    }

    #[test]
    fn a_token_is_what_the_grammar_says() {
        assert!(is_token("!interesting-Method0123456789_*+`.%indeed'~"));
        for not in ["", "a b", "a;b", "a@b", "ü", "a\0"] {
            assert!(!is_token(not), "{not}");
        }
    }
}
