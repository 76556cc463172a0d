use proptest::prelude::*;

use super::*;
use crate::scan;

#[path = "../../tests/torture/mod.rs"]
mod torture;

/// A message that has no fault, in normal form.
fn whole(message: &[u8]) -> Result<Cow<'_, [u8]>, Option<Fault>> {
    match normalise(message) {
        Ok(Normal { text, fault: None }) => Ok(text),
        Ok(Normal { fault, .. }) => Err(fault),
        Err(_) => Err(None),
    }
}

#[test]
fn what_rfc_4475_breaks_in_form_is_told() {
    let faults: Vec<_> = torture::messages()
        .into_iter()
        .filter_map(|message| Some((message.name, whole(&message.bytes).err()?)))
        .collect();
    let expected = [
        ("badinv01", Fault::EmptyVia),
        ("clerr", Fault::BodyCut),
        ("ncl", Fault::BadContentLength),
        ("trws", Fault::TrailingSpace),
        ("mcl01", Fault::BadContentLength),
    ];
    assert_eq!(faults, expected.map(|(name, fault)| (name, Some(fault))));
}

#[test]
fn tags_and_branches_survive_white_space() {
    let message = torture::message("wsinv").bytes;
    let normal = whole(&message).unwrap();
    let (glance, tidied) = (scan(&message).unwrap(), scan(&normal).unwrap());
    assert_eq!(tidied, glance);
    let expected = [&b"5t4le"[..], b"0wl", b"3twigs"].map(Some);
    assert_eq!([glance.to_tag, glance.from_tag, glance.branch], expected);
}

#[test]
fn white_space_goes_only_where_it_means_nothing() {
    for (value, is_via, expected) in [
        ("sip:a@b ; tag\t= c", false, "sip:a@b;tag=c"),
        (
            "\"a ; = \\\" ; b\"  <sip:a@b ; x> ; tag = \"c = d\"",
            false,
            "\"a ; = \\\" ; b\" <sip:a@b ; x>;tag=\"c = d\"",
        ),
        ("A : B / C  <sip:a@b>", false, "A : B / C <sip:a@b>"),
        (
            "SIP / 2.0/ UDP  h : 5060 ;branch= x",
            true,
            "SIP/2.0/UDP h:5060;branch=x",
        ),
        (
            "\"unbalanced  <sip:a@b> ; tag=c",
            false,
            "\"unbalanced  <sip:a@b> ; tag=c",
        ),
        ("Zoë  ; ü", false, "Zoë;ü"),
    ] {
        assert_eq!(tidy(value, is_via), expected, "{value}");
    }
}

#[track_caller]
fn check(message: &str, expected: Result<&str, Fault>) {
    let normal =
        whole(message.as_bytes()).map(|normal| String::from_utf8(normal.into_owned()).unwrap());
    assert_eq!(
        normal.as_deref().map_err(|fault| *fault),
        expected.map_err(Some)
    );
}

#[test]
fn a_message_in_normal_form_is_not_copied() {
    let message = b"BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nCSeq: 1 BYE\r\nContent-Length: 2\r\n\r\nxy";
    assert!(matches!(whole(message), Ok(Cow::Borrowed(_))));
    let longer = [message.as_slice(), b"rest"].concat();
    assert!(matches!(whole(&longer), Ok(Cow::Borrowed(text)) if text == message));
}

#[test]
fn every_way_of_writing_becomes_one() {
    check(
        "\r\n\nINVITE sip:a@b SIP/2.0\nv : SIP/2.0/UDP a ,\r\n SIP/2.0/UDP b\r\nm: \"x, y\" <sip:a,b@c>, <sip:d@e>\r\nSubject: a, b\r\n c\nL: 3\r\n\nbodyrest",
        Ok(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nVia: SIP/2.0/UDP b\r\nContact: \"x, y\" <sip:a,b@c>\r\nContact: <sip:d@e>\r\nSubject: a, b c\r\nContent-Length: 3\r\n\r\nbod",
        ),
    );
    check("BYE a SIP/2.0", Ok("BYE a SIP/2.0\r\n\r\n"));
}

#[test]
fn what_cannot_be_read_is_told() {
    use Fault::*;
    for (rest, error) in [
        ("nothing\r\n\r\n", NoColon),
        ("X: a\0b\r\n\r\n", NotText),
        ("X: a\\\0b\r\n\r\n", NotText),
        ("X: \"a\\\\\0b\"\r\n\r\n", NotText),
        ("X: a\rb\r\n\r\n", NotText),
        ("X: a\r\r\n b\r\n\r\n", NotText),
        ("v: x,,y\r\n\r\n", EmptyVia),
        ("l: 5\r\n\r\nabc", BodyCut),
        ("l: -5\r\n\r\nabc", BadContentLength),
        ("l: +3\r\n\r\nabc", BadContentLength),
        ("l:\r\n\r\nabc", BadContentLength),
        ("l: 1\r\nContent-Length: 2\r\n\r\nabc", BadContentLength),
        (&"X: y\r\n".repeat(300), TooManyHeaders),
        (&format!("m: a{}\r\n", ",a".repeat(300)), TooManyHeaders),
    ] {
        check(&format!("A b SIP/2.0\r\n{rest}"), Err(error));
    }
    check("A b SIP/2.0 \r\n\r\n", Err(TrailingSpace));
    for nothing in [
        &b""[..],
        b"\r\n",
        b"A b\0 SIP/2.0\r\n\r\n",
        b"A b SIP/2.0\r\nX: \xff\r\n\r\n",
    ] {
        assert_eq!(whole(nothing), Err(None));
    }
}

#[test]
fn an_escaped_nul_is_text() {
    let message = "A b SIP/2.0\r\nTo: \"\\\0\" <sip:a@b>\r\n\r\n";
    check(message, Ok(message));
}

#[test]
fn what_is_broken_keeps_what_its_answer_needs() {
    let Normal { text, fault } = normalise(
        b"A b SIP/2.0\nv: SIP/2.0/UDP h;;,;,,\nnothing\nX: \0\nl: 9\nl: 8\ni : x\n\nbody",
    )
    .unwrap();
    assert_eq!(
        str::from_utf8(&text),
        Ok(
            "A b SIP/2.0\r\nVia: SIP/2.0/UDP h;;\r\nVia: ;\r\nContent-Length: 9\r\nCall-ID: x\r\n\r\n"
        )
    );
    assert_eq!(fault, Some(Fault::EmptyVia));
}

/// What [`normalise`] does, without any thought for copies.
fn eagerly(message: &[u8]) -> Option<Vec<u8>> {
    let (head, body) = split(skip_line_ends(message));
    let mut lines: Vec<String> = Vec::new();
    for line in str::from_utf8(head).ok()?.lines() {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push_str(&format!(" {}", line.trim()))
            }
            _ => lines.push(line.to_owned()),
        }
    }
    let (start, lines) = lines.split_first()?;
    let mut normal = start.trim_end().to_owned();
    if start.starts_with("SIP/") && normal.matches(' ').count() == 1 {
        normal.push(' ');
    } else if !start.starts_with("SIP/") && normal != *start {
        return None;
    }
    normal.push_str("\r\n");
    let (mut len, mut count) = (None, 0);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let (name, value) = (full_name(name.trim()).to_owned(), value.trim());
        let is = |known: &&str| name.eq_ignore_ascii_case(known);
        if is(&"Content-Length")
            && len
                .replace(content_len(value).ok()?)
                .is_some_and(|other| Some(other) != len)
        {
            return None;
        }
        let is_via = is(&"Via");
        let all: Vec<&str> = if LISTS.iter().any(is) {
            values(value).collect()
        } else {
            vec![value]
        };
        for value in all {
            let value = if LISTS.iter().any(is) || ADDRESSES.iter().any(is) {
                if value.is_empty() && is_via {
                    return None;
                }
                tidy(value, is_via).into_owned()
            } else {
                value.to_owned()
            };
            if !value.is_empty() || !LISTS.iter().any(is) {
                count += 1;
                normal.push_str(&format!("{name}: {value}\r\n"));
            }
        }
    }
    if count > HEADERS_MAX
        || start.contains(['\0', '\r'])
        || !lines.iter().all(|line| is_text(line))
    {
        return None;
    }
    normal.push_str("\r\n");
    let body = body.get(..len.unwrap_or(body.len()))?;
    Some([normal.as_bytes(), body].concat())
}

/// Header blocks near the grammar: names and values put together from what makes a difference.
fn headers() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "Via",
        "v",
        "V",
        "Contact",
        "m",
        "Route",
        "From",
        "f",
        "TO",
        "Call-ID",
        "i",
        "X",
        "x",
        "s",
        "Content-Length",
        "l",
        "CSeq",
        "",
        "zz",
    ]);
    let piece = prop::sample::select(vec![
        "a",
        "SIP/2.0/UDP",
        "<sip:a@b>",
        " ",
        "  ",
        "\t",
        ";",
        "=",
        ",",
        ":",
        "/",
        "\"",
        "\\",
        "<",
        ">",
        "3",
        "0",
        "ü",
        "\u{a0}",
        "\r\n ",
        "\n\t",
        "\r",
        "\0",
    ]);
    let before = prop::sample::select(vec!["", "", " ", "\t"]);
    let colon = prop::sample::select(vec![": ", ": ", ": ", ":", ":  ", ""]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n"]);
    let line = (name, before, colon, prop::collection::vec(piece, 0..6), end);
    let start = prop::sample::select(vec![
        "A b SIP/2.0\r\n",
        "\r\nA b SIP/2.0\r\n",
        "SIP/2.0 200 OK\r\n",
        "SIP/2.0 200\r\n",
        "SIP/2.0 200 \r\n",
        "A b SIP/2.0 \r\n",
        "A b SIP/2.0\n",
    ]);
    (
        start,
        prop::collection::vec(line, 0..8),
        prop::sample::select(vec!["", "\r\n", "\r\nabc", "\nabcd"]),
    )
        .prop_map(|(start, lines, rest)| {
            let mut text = start.to_owned();
            for (name, before, colon, pieces, end) in lines {
                text.extend([name, before, colon]);
                text.extend(pieces);
                text.push_str(end);
            }
            text.push_str(rest);
            text.into_bytes()
        })
}

#[track_caller]
fn check_all(message: &[u8]) -> Result<(), TestCaseError> {
    let normal = whole(message);
    let meant = eagerly(message);
    prop_assert_eq!(normal.as_deref().ok(), meant.as_deref());
    if let Ok(normal) = normal {
        prop_assert!(
            matches!(whole(&normal), Ok(Cow::Borrowed(again)) if again == &normal[..]),
            "{:?}",
            String::from_utf8_lossy(&normal)
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn normal_form_is_final_and_what_was_always_meant(message in headers()) {
        check_all(&message)?;
    }

    #[test]
    fn no_damage_panics_and_normal_form_is_final(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n \t:;,=<>\"\\\0"[..])]), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = torture::messages();
        let mut message = all[which.index(all.len())].bytes.clone();
        for (at, octet) in damage {
            let at = at.index(message.len());
            message[at] = octet;
        }
        // Half of them whole.
        message.truncate((cut.index(2 * message.len())).min(message.len()));
        if let Ok(glance) = scan(&message) {
            let _ = (glance.owner(), glance.user(), glance.is_for_room());
        }
        check_all(&message)?;
    }
}
