//! What holds for every description, on random ones.

use proptest::prelude::*;

use super::*;
use crate::sdp::fuzz;

fn word() -> impl Strategy<Value = String> {
    "[!-~]{1,12}"
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(|address| Host::Ip(address.into())),
        any::<std::net::Ipv6Addr>().prop_map(|address| Host::Ip(address.into())),
        "[a-z][a-z0-9.-]{0,20}x".prop_map(|name| Host::from_text(&name)),
    ]
}

fn direction() -> impl Strategy<Value = Option<Direction>> {
    prop::sample::select(vec![
        None,
        Some(Direction::SendRecv),
        Some(Direction::SendOnly),
        Some(Direction::RecvOnly),
        Some(Direction::Inactive),
    ])
}

/// Attributes of all kinds, and those that mean something here with likely values.
fn attribute() -> impl Strategy<Value = Attribute> {
    let meaningful = prop::sample::select(vec!["rtpmap", "fmtp", "ptime", "maxptime", "rtcp"]);
    let value = prop_oneof![
        "[0-9]{1,3}",
        "(0|8|9|9[6-9]|10[01]) (opus/48000/2|PCMU/8000|G722/8000|telephone-event/8000|0-1[0-9])",
        "[0-9]{1,5} IN IP[46] [0-9.:]{2,15}",
    ];
    prop_oneof![
        2 => (meaningful, value).prop_map(|(name, value)| Attribute::new(name, value)),
        1 => Just(Attribute::flag("rtcp-mux")),
        1 => "[a-z][a-z0-9-]{0,9}x".prop_map(|name| Attribute::flag(&name)),
        1 => ("[a-z][a-z0-9-]{0,9}", "([ -~é]{0,20}[!-~])?")
            .prop_map(|(name, value)| Attribute::new(&name, value)),
    ]
}

fn media() -> impl Strategy<Value = Media> {
    let kind = prop_oneof![3 => Just("audio".to_owned()), 1 => word()];
    let protocol = prop_oneof![
        3 => Just("RTP/AVP".to_owned()),
        1 => Just("RTP/AVPF".to_owned()),
        1 => word(),
    ];
    let format = prop_oneof![
        4 => prop::sample::select(vec!["0", "8", "9", "96", "97", "98", "99", "100", "101"])
            .prop_map(str::to_owned),
        1 => any::<u8>().prop_map(|number| number.to_string()),
        1 => word(),
    ];
    (
        (
            kind,
            any::<u16>(),
            prop_oneof![4 => Just(1), 1 => Just(0), 1 => any::<u16>()],
            protocol,
        ),
        prop::collection::vec(format, 0..8),
        prop::option::of(host()),
        direction(),
        prop::collection::vec(attribute(), 0..8),
    )
        .prop_map(|(line, formats, connection, direction, attributes)| {
            let (kind, port, port_count, protocol) = line;
            Media {
                kind,
                port,
                port_count,
                protocol,
                formats,
                connection,
                direction,
                attributes,
            }
        })
}

prop_compose! {
    fn descriptions()(
        username in word(),
        session_id: u64,
        version: u64,
        address in host(),
        session_name in "[ -~é]{0,20}[!-~]",
        connection in prop::option::of(host()),
        times in prop::collection::vec(any::<(u64, u64)>(), 1..3),
        direction in direction(),
        attributes in prop::collection::vec(attribute(), 0..4),
        media in prop::collection::vec(media(), 0..5),
    ) -> SessionDescription {
        SessionDescription {
            origin: Origin { username, session_id, version, address },
            session_name,
            connection,
            times,
            direction,
            attributes,
            media,
        }
    }
}

proptest! {
    #[test]
    fn written_and_read_again(description in descriptions()) {
        prop_assert_eq!(parse(description.to_string().as_bytes()), Ok(description));
    }

    #[test]
    fn answers_keep_the_rules(description in descriptions()) {
        fuzz::session_description(description.to_string().as_bytes());
    }

    #[test]
    fn every_acceptable_offer_is_answered(
        mut description in descriptions(),
        place: prop::sample::Index,
        port in 1_u16..,
        payload_type in 96_u8..=127,
    ) {
        let acceptable = Media {
            kind: "audio".to_owned(),
            port,
            port_count: 1,
            protocol: "RTP/AVP".to_owned(),
            formats: vec![payload_type.to_string()],
            connection: Some(Host::from_text("198.51.100.2")),
            direction: None,
            attributes: vec![Attribute::new("rtpmap", format!("{payload_type} opus/48000/2"))],
        };
        let place = place.index(description.media.len() + 1);
        description.media.insert(place, acceptable);
        let (answer, agreed) = answer(&description, &capabilities(), &local()).unwrap();
        check_answer(&description, &answer);
        check_agreed(&agreed, &capabilities());
        prop_assert!(agreed.media_index <= place);
        let open = answer.media.iter().filter(|media| media.port != 0).count();
        prop_assert_eq!(open, 1);
        prop_assert_eq!(answer.media[agreed.media_index].port, local().rtp_port);
    }

    #[test]
    fn spoiled_descriptions_never_panic(
        description in descriptions(),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut text = description.to_string().into_bytes();
        for (place, byte) in spoils {
            let place = place.index(text.len());
            text[place] = byte;
        }
        fuzz::session_description(&text);
    }

    #[test]
    fn random_lines_never_panic(lines in "v=0\n([a-z]=[ -~\r\t]{0,30}\n){0,20}") {
        fuzz::session_description(lines.as_bytes());
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        fuzz::session_description(&bytes);
        fuzz::session_description(&[b"v=0\n", bytes.as_slice()].concat());
    }
}
