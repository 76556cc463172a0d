use super::*;

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <conference-info xmlns=\"urn:ietf:params:xml:ns:conference-info\" entity=\"sip:lobby@example.com\"";

const DESCRIPTION: &str = "<conference-description><display-text>Lobby</display-text>\
    <conf-uris><entry><uri>sip:lobby@example.com</uri><purpose>participation</purpose></entry></conf-uris>\
    <maximum-user-count>500</maximum-user-count>\
    <available-media><entry label=\"main\"><type>audio</type><status>sendrecv</status></entry></available-media>\
    </conference-description>";

const ALICE: &str = "<user entity=\"sip:alice@example.com\" state=\"full\">\
    <display-text>Alice &lt;&quot;A&amp;B&quot;&gt;</display-text>\
    <endpoint entity=\"sip:alice@192.0.2.1:5060;transport=tcp\" state=\"full\">\
    <status>connected</status><joining-method>dialed-in</joining-method>\
    <joining-info><when>2005-03-04T20:00:00Z</when></joining-info>\
    <media id=\"1\"><type>audio</type><label>main</label><src-id>432424</src-id><status>sendrecv</status></media>\
    </endpoint></user>";

fn state(users: u32) -> String {
    format!(
        "<conference-state><user-count>{users}</user-count><active>true</active>\
         <locked>false</locked></conference-state>"
    )
}

fn document(state: &str, version: u32, children: &str) -> String {
    format!("{HEAD} state=\"{state}\" version=\"{version}\">{children}</conference-info>")
}

/// A subscriber whose documents come when they are asked for.
struct Listener {
    subscriber: Subscriber,
    now: Instant,
}

impl Listener {
    fn new() -> Self {
        Self {
            subscriber: Subscriber::new(Duration::ZERO),
            now: epoch(),
        }
    }

    fn hear(&mut self, roster: &Roster, cause: Cause) -> String {
        let body = self.subscriber.take(self.now, roster, cause).unwrap();
        assert_eq!(body.content_type, "application/conference-info+xml");
        String::from_utf8(body.content.to_vec()).unwrap()
    }

    /// The children of the element `users`, or nothing.
    fn users(&mut self, roster: &Roster) -> String {
        let text = self.hear(roster, Cause::Changed);
        let Some((_, users)) = text.split_once("<users state=\"partial\">") else {
            assert!(!text.contains("<users"), "{text}");
            return String::new();
        };
        users.split_once("</users>").unwrap().0.to_owned()
    }
}

#[test]
fn full_partial_and_deleted() {
    let mut roster = roster();
    let mut listener = Listener::new();
    assert_eq!(
        listener.hear(&roster, Cause::Immediate),
        document(
            "full",
            1,
            &format!("{DESCRIPTION}{}<users state=\"full\"></users>", state(0))
        )
    );
    roster.update_user(alice()).unwrap();
    assert_eq!(
        listener.hear(&roster, Cause::Changed),
        document(
            "partial",
            2,
            &format!("{}<users state=\"partial\">{ALICE}</users>", state(1))
        )
    );
    let mut held = alice();
    held.endpoints[0].status = Some(Status::OnHold);
    held.endpoints[0].media[0].status = Some(MediaStatus::RecvOnly);
    roster.update_user(held).unwrap();
    let partial = ALICE
        .replace("\"full\"", "\"partial\"")
        .replace("connected", "on-hold")
        .replace("sendrecv", "recvonly");
    assert_eq!(
        listener.hear(&roster, Cause::Changed),
        document(
            "partial",
            3,
            &format!("<users state=\"partial\">{partial}</users>")
        )
    );
    roster.update_user(alice()).unwrap();
    assert_eq!(
        listener.hear(&roster, Cause::Immediate),
        document(
            "full",
            4,
            &format!(
                "{DESCRIPTION}{}<users state=\"full\">{ALICE}</users>",
                state(1)
            )
        )
    );
    assert!(roster.remove_user("sip:alice@example.com"));
    assert_eq!(
        listener.hear(&roster, Cause::Changed),
        document(
            "partial",
            5,
            &format!(
                "{}<users state=\"partial\"><user entity=\"sip:alice@example.com\" \
                 state=\"deleted\"></user></users>",
                state(0)
            )
        )
    );
    roster.set_locked(true);
    assert_eq!(
        listener.hear(&roster, Cause::Changed),
        document(
            "partial",
            6,
            &state(0).replace("locked>false", "locked>true")
        )
    );
    roster.end();
    assert_eq!(
        listener.hear(&roster, Cause::Changed),
        document("deleted", 7, "")
    );
    assert_eq!(
        listener
            .subscriber
            .take(listener.now, &roster, Cause::Changed),
        None
    );
}

#[test]
fn a_roster_and_its_copy_write_the_same() {
    let mut roster = roster();
    roster.update_user(alice()).unwrap();
    roster
        .update_user(user("sip:bob@h", &[("b", Status::Pending)]))
        .unwrap();
    let text = Listener::new().hear(&roster, Cause::Immediate);
    assert_eq!(text, roster.conference().to_xml(1));
}

#[test]
fn everything_an_endpoint_can_tell() {
    let endpoint = Endpoint {
        entity: "sip:a@h;gr".to_owned(),
        display_text: some("Desk\n\tphone"),
        status: Some(Status::Disconnected),
        joining_method: Some(JoiningMethod::DialedOut),
        joining: Joining {
            when: None,
            reason: some("invited"),
            by: some("sip:b@h"),
        },
        disconnection: Some(Disconnection {
            method: Some(DisconnectionMethod::Booted),
            when: Some(Timestamp::from_unix(0)),
            reason: some("noise\u{1}"),
            by: some("sip:c@h"),
        }),
        media: vec![Media {
            id: "a".to_owned(),
            ..Media::default()
        }],
    };
    let mut xml = String::new();
    write::endpoint(&mut xml, &endpoint, State::Full);
    assert_eq!(
        xml,
        "<endpoint entity=\"sip:a@h;gr\" state=\"full\">\
         <display-text>Desk&#10;&#9;phone</display-text><status>disconnected</status>\
         <joining-method>dialed-out</joining-method>\
         <joining-info><reason>invited</reason><by>sip:b@h</by></joining-info>\
         <disconnection-method>booted</disconnection-method>\
         <disconnection-info><when>1970-01-01T00:00:00Z</when><reason>noise\u{fffd}</reason>\
         <by>sip:c@h</by></disconnection-info><media id=\"a\"></media></endpoint>"
    );
}

#[test]
fn changes_of_one_user() {
    let (up, held) = (Status::Connected, Status::OnHold);
    let mut roster = roster();
    let mut listener = Listener::new();
    roster.update_user(user("u", &[("1", up)])).unwrap();
    listener.hear(&roster, Cause::Immediate);
    let full = |entity: &str, status: &str| {
        format!("<endpoint entity=\"{entity}\" state=\"full\"><status>{status}</status></endpoint>")
    };
    let partial = |content: &str| format!("<user entity=\"u\" state=\"partial\">{content}</user>");
    for (change, told) in [
        // A second endpoint; the first is not told again.
        (
            user("u", &[("1", up), ("2", up)]),
            partial(&full("2", "connected")),
        ),
        (
            user("u", &[("1", held), ("2", up)]),
            partial(&full("1", "on-hold").replace("full", "partial")),
        ),
        (
            user("u", &[("2", up)]),
            partial("<endpoint entity=\"1\" state=\"deleted\"></endpoint>"),
        ),
        // It comes back.
        (
            user("u", &[("1", up), ("2", up)]),
            partial(&full("1", "connected")),
        ),
        // The name goes.
        (
            User {
                display_text: some("U"),
                ..user("u", &[("1", up), ("2", up)])
            },
            partial("<display-text>U</display-text>"),
        ),
        (
            user("u", &[("1", up), ("2", up)]),
            format!(
                "<user entity=\"u\" state=\"full\">{}{}</user>",
                full("1", "connected"),
                full("2", "connected")
            ),
        ),
    ] {
        roster.update_user(change).unwrap();
        assert_eq!(listener.users(&roster), told);
    }
    // Gone and back within one document: whole, and not gone as well.
    roster.update_user(user("u", &[("2", up)])).unwrap();
    roster
        .update_user(user("u", &[("1", up), ("2", up)]))
        .unwrap();
    assert_eq!(listener.users(&roster), partial(&full("1", "connected")));
    // A medium goes: the endpoint is told as a whole.
    let mut with_media = user("u", &[("1", up), ("2", up)]);
    with_media.endpoints[0].media = vec![audio(7, MediaStatus::SendRecv)];
    roster.update_user(with_media).unwrap();
    listener.users(&roster);
    roster
        .update_user(user("u", &[("1", up), ("2", up)]))
        .unwrap();
    assert_eq!(listener.users(&roster), partial(&full("1", "connected")));
}

#[test]
fn who_came_and_went_unheard_is_not_told() {
    let up = Status::Connected;
    let mut roster = roster();
    let mut listener = Listener::new();
    roster.update_user(user("stays", &[("1", up)])).unwrap();
    roster.update_user(user("goes", &[("1", up)])).unwrap();
    listener.hear(&roster, Cause::Immediate);
    roster.update_user(user("brief", &[("1", up)])).unwrap();
    roster.remove_user("brief");
    assert_eq!(listener.users(&roster), "");
    // Gone and back and gone: known from before.
    roster.remove_user("goes");
    roster.update_user(user("goes", &[("2", up)])).unwrap();
    roster.remove_user("goes");
    assert_eq!(
        listener.users(&roster),
        "<user entity=\"goes\" state=\"deleted\"></user>"
    );
    // Gone and back: in the place of what was.
    roster.remove_user("stays");
    roster.update_user(user("stays", &[("2", up)])).unwrap();
    assert_eq!(
        listener.users(&roster),
        "<user entity=\"stays\" state=\"full\"><endpoint entity=\"2\" state=\"full\">\
         <status>connected</status></endpoint></user>"
    );
}

#[test]
fn full_when_partial_would_be_longer() {
    let mut roster = roster();
    for number in 0..100 {
        let user = user(&anonymous(number), &[("1", Status::Connected)]);
        roster.update_user(user).unwrap();
    }
    let mut listener = Listener::new();
    listener.hear(&roster, Cause::Immediate);
    roster.remove_user(&anonymous(0));
    let text = listener.hear(&roster, Cause::Changed);
    assert!(text.contains("state=\"partial\""), "{text}");
    // Saying who is gone takes longer than saying who is left.
    for number in 1..90 {
        roster.remove_user(&anonymous(number));
    }
    let text = listener.hear(&roster, Cause::Changed);
    assert_eq!(text, roster.conference().to_xml(3));
}

#[test]
fn full_when_it_is_forgotten_who_left() {
    let mut roster = roster();
    // Makes any partial document the shorter one.
    let long = User {
        display_text: Some("x".repeat(200_000)),
        ..user("long", &[])
    };
    roster.update_user(long).unwrap();
    for number in 0..1100 {
        roster.update_user(user(&anonymous(number), &[])).unwrap();
    }
    let mut late = Listener::new();
    late.hear(&roster, Cause::Immediate);
    for number in 0..100 {
        roster.remove_user(&anonymous(number));
    }
    let mut later = Listener::new();
    later.hear(&roster, Cause::Immediate);
    for number in 100..1100 {
        roster.remove_user(&anonymous(number));
    }
    let text = late.hear(&roster, Cause::Changed);
    assert_eq!(text, roster.conference().to_xml(2));
    let deleted = later.users(&roster);
    assert_eq!(deleted.matches("state=\"deleted\"").count(), 1000);
}

#[test]
fn a_whole_user_when_it_is_forgotten_which_endpoint_left() {
    let up = Status::Connected;
    let mut roster = roster();
    // Makes any partial document the shorter one.
    roster.set_description(Description {
        display_text: Some("x".repeat(2000)),
        ..description()
    });
    roster.update_user(user("u", &[("0", up)])).unwrap();
    let mut late = Listener::new();
    late.hear(&roster, Cause::Immediate);
    roster.update_user(user("u", &[("1", up)])).unwrap();
    let mut later = Listener::new();
    later.hear(&roster, Cause::Immediate);
    for number in 2..=17 {
        let moved = user("u", &[(&number.to_string(), up)]);
        roster.update_user(moved).unwrap();
    }
    let last = "<endpoint entity=\"17\" state=\"full\"><status>connected</status></endpoint>";
    assert_eq!(
        late.users(&roster),
        format!("<user entity=\"u\" state=\"full\">{last}</user>")
    );
    let told = later.users(&roster);
    assert_eq!(told.matches("state=\"deleted\"").count(), 16, "{told}");
}

#[test]
fn only_participants_are_counted() {
    let mut roster = roster();
    let mut count = |status| {
        roster.update_user(user("u", &[("1", status)])).unwrap();
        roster.conference().state.user_count.unwrap()
    };
    let counts = Status::ALL.iter().map(|&status| count(status));
    assert!(counts.eq([0, 0, 0, 0, 1, 1, 1, 0, 0]));
}

#[test]
fn limits_of_a_roster() {
    let mut roster = roster();
    let names: Vec<String> = (0..=ENDPOINTS_MAX).map(|n| n.to_string()).collect();
    let endpoints = |count: usize| -> Vec<(&str, Status)> {
        let names = names[..count].iter();
        names.map(|name| (name.as_str(), Status::Pending)).collect()
    };
    let media = |ids: usize| {
        let mut user = user("m", &[("1", Status::Pending)]);
        let media = |id: usize| Media {
            id: id.to_string(),
            ..Media::default()
        };
        user.endpoints[0].media = (0..ids).map(media).collect();
        user
    };
    let mut twice = media(2);
    twice.endpoints[0].media[0].id = "1".to_owned();
    for (user, result) in [
        (user("u", &endpoints(ENDPOINTS_MAX)), Ok(())),
        (
            user("u", &endpoints(ENDPOINTS_MAX + 1)),
            Err(RosterError::TooManyEndpoints),
        ),
        (media(MEDIA_MAX), Ok(())),
        (media(MEDIA_MAX + 1), Err(RosterError::TooManyMedia)),
        (twice, Err(RosterError::DuplicateKey)),
        (
            user("u", &[("1", Status::Pending), ("1", Status::Alerting)]),
            Err(RosterError::DuplicateKey),
        ),
    ] {
        let before = roster.revision();
        assert_eq!(roster.update_user(user), result);
        assert_eq!(roster.revision() > before, result.is_ok());
    }
    for number in 2..USERS_MAX {
        roster.update_user(user(&number.to_string(), &[])).unwrap();
    }
    assert_eq!(
        roster.update_user(user("one more", &[])),
        Err(RosterError::TooManyUsers)
    );
    assert_eq!(roster.update_user(user("u", &[])), Ok(()));
    assert!(!roster.remove_user("one more"));
    assert_eq!(roster.user("2"), Some(&user("2", &[])));
}

/// The example of RFC 4575 §6 in spirit: white space, foreign elements, what is not read here.
const OTHERS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- by hand -->
<ci:conference-info xmlns:ci="urn:ietf:params:xml:ns:conference-info" xmlns:x="urn:x"
    entity="sips:conf233@example.com" version="1" x:state="deleted">
  <ci:conference-description>
    <ci:subject>Agenda</ci:subject>
    <ci:conf-uris>
      <ci:entry><ci:uri> tel:+18882934234 </ci:uri></ci:entry>
      <ci:entry><ci:uri>http://example.com/live</ci:uri><ci:purpose>streaming</ci:purpose></ci:entry>
    </ci:conf-uris>
  </ci:conference-description>
  <ci:host-info><ci:display-text>Host</ci:display-text></ci:host-info>
  <ci:conference-state><ci:user-count>33</ci:user-count><ci:active>1</ci:active><ci:locked/></ci:conference-state>
  <x:users><ci:user entity="no"/></x:users>
  <ci:users>
    <ci:user entity="sip:bob@example.com" state="full">
      <ci:display-text>B<![CDATA[o&]]><!-- b -->b&#x20;&lt;</ci:display-text>
      <ci:roles><ci:entry>participant</ci:entry></ci:roles>
      <ci:endpoint entity=" sip:bob@pc33.example.com ">
        <x:status>connected</x:status>
        <ci:status> disconnected </ci:status>
        <ci:disconnection-method>departed</ci:disconnection-method>
        <ci:disconnection-info>
          <ci:when>2005-03-04T21:00:00.5+01:00</ci:when>
          <ci:reason>bad voice quality</ci:reason>
          <ci:by>sip:mike@example.com</ci:by>
        </ci:disconnection-info>
        <ci:media id="1"><ci:type>audio</ci:type><ci:src-id>not a number</ci:src-id><ci:status>odd</ci:status></ci:media>
        <ci:call-info><ci:sip><ci:call-id>h</ci:call-id></ci:sip></ci:call-info>
      </ci:endpoint>
    </ci:user>
  </ci:users>
</ci:conference-info>
"#;

#[test]
fn documents_of_others() {
    let read = read(OTHERS.as_bytes()).unwrap();
    assert_eq!((read.state, read.version), (State::Full, Some(1)));
    let mut replica = Replica::default();
    assert_eq!(replica.apply(read), Ok(Applied::Done));
    let expected = Conference {
        entity: "sips:conf233@example.com".to_owned(),
        description: Description {
            uris: vec!["tel:+18882934234".to_owned()],
            ..Description::default()
        },
        state: ConferenceState {
            user_count: Some(33),
            active: Some(true),
            locked: None,
        },
        users: vec![User {
            entity: "sip:bob@example.com".to_owned(),
            display_text: some("Bo&b <"),
            endpoints: vec![Endpoint {
                entity: "sip:bob@pc33.example.com".to_owned(),
                status: Some(Status::Disconnected),
                disconnection: Some(Disconnection {
                    method: Some(DisconnectionMethod::Departed),
                    when: Some(Timestamp::from_unix(1_109_966_400)),
                    reason: some("bad voice quality"),
                    by: some("sip:mike@example.com"),
                }),
                media: vec![Media {
                    id: "1".to_owned(),
                    kind: some("audio"),
                    ..Media::default()
                }],
                ..Endpoint::default()
            }],
        }],
    };
    assert_eq!(replica.conference(), Some(&expected));
    for end in 0..OTHERS.trim_end().len() {
        assert!(super::read(&OTHERS.as_bytes()[..end]).is_err(), "{end}");
    }
}

#[test]
fn what_is_no_document() {
    let root = |attributes: &str, children: &str| {
        format!("<conference-info xmlns=\"{NAMESPACE}\" {attributes}>{children}</conference-info>")
    };
    let user = |content: &str| root("entity=\"a\"", &format!("<users><user {content}/></users>"));
    let deep = format!("<x>{}{}</x>", "<y>".repeat(40), "</y>".repeat(40));
    let users = "<user entity=\"a\"/>".repeat(USERS_MAX + 1);
    for (text, error) in [
        (" ".repeat(XML_LEN_MAX + 1), ReadError::TooLong),
        (String::new(), ReadError::NotXml),
        ("text".to_owned(), ReadError::NotXml),
        (root("entity=\"a\"", "&name;"), ReadError::NotXml),
        (root("entity=\"a\"", "&#1;"), ReadError::NotXml),
        (root("entity=\"&#1;\"", ""), ReadError::NotXml),
        (root("entity=\"a\"", "\u{1}"), ReadError::NotXml),
        (root("entity=\"a\" entity=\"b\"", ""), ReadError::NotXml),
        (root("entity=\"a\"", "") + "<x/>", ReadError::NotXml),
        (
            format!("<!DOCTYPE x>{}", root("entity=\"a\"", "")),
            ReadError::NotXml,
        ),
        (
            "<conference-info entity=\"a\"/>".to_owned(),
            ReadError::NotConferenceInfo,
        ),
        (
            format!("<users xmlns=\"{NAMESPACE}\" entity=\"a\"/>"),
            ReadError::NotConferenceInfo,
        ),
        (root("", ""), ReadError::NoKey),
        (user(""), ReadError::NoKey),
        (root("entity=\"a\" state=\"odd\"", ""), ReadError::Attribute),
        (
            root("entity=\"a\" version=\"-1\"", ""),
            ReadError::Attribute,
        ),
        (
            root("entity=\"a\" version=\"4294967296\"", ""),
            ReadError::Attribute,
        ),
        (user("entity=\"a\" state=\"Full\""), ReadError::Attribute),
        (root("entity=\"a\"", &deep), ReadError::TooMany),
        (
            root("entity=\"a\"", &format!("<users>{users}</users>")),
            ReadError::TooMany,
        ),
    ] {
        assert_eq!(read(text.as_bytes()), Err(error), "{text:.300}");
    }
    assert_eq!(read(b"\xff"), Err(ReadError::NotXml));
}
