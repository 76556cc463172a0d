use super::*;

fn subscribe(roster: &Roster, now: Instant) -> (Subscriber, Replica) {
    let mut subscriber = Subscriber::new(MIN_INTERVAL);
    let mut replica = Replica::default();
    let body = subscriber.take(now, roster, Cause::Immediate).unwrap();
    assert_eq!(
        replica.apply(read(&body.content).unwrap()),
        Ok(Applied::Done)
    );
    (subscriber, replica)
}

#[test]
fn notifies_keep_their_distance() {
    let start = epoch();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut roster = roster();
    let (mut subscriber, _) = subscribe(&roster, start);
    assert_eq!(subscriber.due(start, &roster), None);
    assert_eq!(subscriber.take(at(9), &roster, Cause::Changed), None);
    roster.update_user(alice()).unwrap();
    assert_eq!(subscriber.due(at(1), &roster), Some(at(5)));
    assert_eq!(subscriber.take(at(4), &roster, Cause::Changed), None);
    roster
        .update_user(user("b", &[("1", Status::Connected)]))
        .unwrap();
    assert_eq!(subscriber.due(at(7), &roster), Some(at(7)));
    let both = subscriber.take(at(7), &roster, Cause::Changed).unwrap();
    let both = read(&both.content).unwrap();
    assert_eq!(both.users.unwrap().1.len(), 2);
    assert_eq!(subscriber.due(at(8), &roster), None);
    // A refresh waits for nothing; what follows waits for it.
    assert!(subscriber.take(at(8), &roster, Cause::Immediate).is_some());
    roster.remove_user("b");
    assert_eq!(subscriber.due(at(9), &roster), Some(at(13)));
    // Neither does the end.
    roster.end();
    assert_eq!(subscriber.due(at(9), &roster), Some(at(9)));
    assert!(subscriber.take(at(9), &roster, Cause::Changed).is_some());
    assert_eq!(subscriber.due(at(20), &roster), None);
    // Who subscribes now is told the same.
    let mut late = Subscriber::new(MIN_INTERVAL);
    let last = late.take(at(20), &roster, Cause::Immediate).unwrap();
    assert_eq!(read(&last.content).unwrap().state, State::Deleted);
}

fn partial(version: Option<u32>, entity: &str) -> Document {
    Document {
        entity: entity.to_owned(),
        state: State::Partial,
        version,
        description: None,
        conference_state: None,
        users: None,
    }
}

#[test]
fn versions_are_followed() {
    let entity = "sip:lobby@example.com";
    let full = |version| read(roster().conference().to_xml(version).as_bytes()).unwrap();
    let mut replica = Replica::default();
    assert_eq!(replica.apply(partial(Some(1), entity)), Err(Gap));
    assert_eq!(replica.apply(full(3)), Ok(Applied::Done));
    for (document, applied, version) in [
        (full(3), Ok(Applied::Stale), 3),
        (partial(Some(3), entity), Ok(Applied::Stale), 3),
        (partial(Some(4), entity), Ok(Applied::Done), 4),
        (partial(Some(6), entity), Err(Gap), 4),
        (partial(Some(5), "sip:other"), Err(Gap), 4),
        (partial(None, entity), Err(Gap), 4),
        (full(9), Ok(Applied::Done), 9),
        (full(u32::MAX), Ok(Applied::Done), u32::MAX),
        (partial(Some(0), entity), Ok(Applied::Stale), u32::MAX),
    ] {
        let before = replica.clone();
        assert_eq!(replica.apply(document), applied);
        assert_eq!(replica.version(), Some(version));
        assert!(applied == Ok(Applied::Done) || replica == before);
    }
}

#[test]
fn states_of_elements_are_followed() {
    let start = |version, content: &str| {
        let state = if version == 1 { "full" } else { "partial" };
        let text = format!(
            "<conference-info xmlns=\"{NAMESPACE}\" entity=\"c\" state=\"{state}\" \
             version=\"{version}\">{content}</conference-info>"
        );
        read(text.as_bytes()).unwrap()
    };
    let mut replica = Replica::default();
    for (version, content, expected) in [
        (
            1,
            "<users><user entity='a'><display-text>A</display-text><endpoint entity='1'><status>pending</status>\
             <media id='x'/></endpoint></user><user entity='b' state='partial'/><user entity='no' state='deleted'/></users>",
            "a(A):1 pending x;|b():|",
        ),
        // Partial adds and changes.
        (
            2,
            "<users state='partial'><user entity='a' state='partial'><endpoint entity='1' state='partial'>\
             <media id='y'/><media id='x'/></endpoint><endpoint entity='2'/></user><user entity='c' state='partial'/></users>",
            "a(A):1 pending xy;2  ;|b():|c():|",
        ),
        // Full endpoints and users take the place of others.
        (
            3,
            "<users state='partial'><user entity='a' state='partial'><endpoint entity='1'><media id='z'/>\
             </endpoint><endpoint entity='2' state='deleted'/></user><user entity='b'><display-text>B</display-text></user></users>",
            "a(A):1  z;|b(B):|c():|",
        ),
        (
            4,
            "<users state='partial'><user entity='a'/><user entity='b' state='deleted'><endpoint entity='9'/></user></users>",
            "a():|c():|",
        ),
        (5, "<conference-state/>", "a():|c():|"),
        // So does a full list.
        (
            6,
            "<users><user entity='d'/><user entity='d'/></users>",
            "d():|",
        ),
        (7, "<users state='deleted'><user entity='e'/></users>", ""),
    ] {
        assert_eq!(replica.apply(start(version, content)), Ok(Applied::Done));
        let mut told = String::new();
        for user in &replica.conference().unwrap().users {
            told += &format!(
                "{}({}):",
                user.entity,
                user.display_text.as_deref().unwrap_or("")
            );
            for endpoint in &user.endpoints {
                let status = endpoint.status.map_or("", Status::as_str);
                let media: String = endpoint.media.iter().map(|media| &*media.id).collect();
                told += &format!("{} {status} {media};", endpoint.entity);
            }
            told.push('|');
        }
        assert_eq!(told, expected, "{version}");
    }
}

#[test]
fn a_replica_is_bounded() {
    let list = |first: usize| -> Vec<UserUpdate> {
        let user = |number: usize| UserUpdate {
            state: State::Full,
            entity: number.to_string(),
            display_text: None,
            endpoints: Vec::new(),
        };
        (first..first + USERS_MAX).map(user).collect()
    };
    let document = |version, users| Document {
        users: Some((State::Partial, users)),
        ..partial(Some(version), "c")
    };
    let mut replica = Replica::default();
    let full = Document {
        state: State::Full,
        ..document(1, list(0))
    };
    assert_eq!(replica.apply(full), Ok(Applied::Done));
    assert_eq!(replica.apply(document(2, list(1))), Err(Gap));
    assert_eq!(replica.apply(document(2, list(0))), Ok(Applied::Done));
    let many = |first: usize, count: usize| {
        let endpoint = |number: usize| EndpointUpdate {
            state: State::Full,
            endpoint: Endpoint {
                entity: number.to_string(),
                ..Endpoint::default()
            },
        };
        vec![UserUpdate {
            state: State::Partial,
            entity: "0".to_owned(),
            display_text: None,
            endpoints: (first..first + count).map(endpoint).collect(),
        }]
    };
    assert_eq!(
        replica.apply(document(3, many(0, ENDPOINTS_MAX))),
        Ok(Applied::Done)
    );
    assert_eq!(replica.apply(document(4, many(1, ENDPOINTS_MAX))), Err(Gap));
}

/// What may happen to a conference and those who listen.
#[derive(Clone, Debug)]
enum Step {
    Update(User),
    Remove(usize),
    Lock(bool),
    Describe(Option<String>),
    Wait(u64),
    Subscribe,
    Refresh(usize),
    Unsubscribe(usize),
}

/// Few, so that they meet again.
const NAMES: usize = 6;

fn name(number: usize) -> String {
    format!("sip:{number}@h")
}

/// With what is hard to write and to read.
fn any_text() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[ a<>&\"'\\]\\n\\t\\r\u{e9}]{0,6}")
}

fn any_media() -> impl Strategy<Value = Vec<Media>> {
    let medium = (
        prop::option::of(any::<u32>()),
        prop::option::of(prop::sample::select(MediaStatus::ALL)),
    );
    prop::collection::btree_map(0..3_u8, medium, 0..3).prop_map(|media| {
        let media = media.into_iter().map(|(id, (src_id, status))| Media {
            id: id.to_string(),
            kind: some("audio"),
            label: None,
            src_id,
            status,
        });
        media.collect()
    })
}

fn any_disconnection() -> impl Strategy<Value = Option<Disconnection>> {
    let method = prop::sample::select(DisconnectionMethod::ALL);
    prop::option::of((method, any_text(), prop::option::of(0..9_u64))).prop_map(|end| {
        end.map(|(method, reason, when)| Disconnection {
            method: Some(method),
            when: when.map(Timestamp::from_unix),
            reason,
            by: None,
        })
    })
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    (
        any_text(),
        prop::option::of(prop::sample::select(Status::ALL)),
        prop::option::of(prop::sample::select(JoiningMethod::ALL)),
        prop::option::of(0..9_u64),
        prop::option::of((0..NAMES).prop_map(name)),
        any_disconnection(),
        any_media(),
    )
        .prop_map(
            |(display_text, status, joining_method, when, by, disconnection, media)| Endpoint {
                entity: String::new(),
                display_text,
                status,
                joining_method,
                joining: Joining {
                    when: when.map(Timestamp::from_unix),
                    reason: None,
                    by,
                },
                disconnection,
                media,
            },
        )
}

fn any_user() -> impl Strategy<Value = User> {
    let endpoints = prop::collection::hash_map(0..4_usize, any_endpoint(), 0..4);
    (0..NAMES, any_text(), endpoints).prop_map(|(entity, display_text, endpoints)| User {
        entity: name(entity),
        display_text,
        endpoints: endpoints
            .into_iter()
            .map(|(number, endpoint)| Endpoint {
                entity: name(number),
                ..endpoint
            })
            .collect(),
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_user().prop_map(Step::Update),
        4 => (0..NAMES).prop_map(Step::Remove),
        1 => any::<bool>().prop_map(Step::Lock),
        1 => any_text().prop_map(Step::Describe),
        6 => (0..7_u64).prop_map(Step::Wait),
        2 => Just(Step::Subscribe),
        1 => (0..4_usize).prop_map(Step::Refresh),
        1 => (0..4_usize).prop_map(Step::Unsubscribe),
    ]
}

struct Listener {
    subscriber: Subscriber,
    replica: Replica,
    last: Instant,
}

impl Listener {
    /// Takes what is due, and checks that it was.
    fn poll(&mut self, now: Instant, roster: &Roster) {
        let due = self.subscriber.due(now, roster);
        let Some(body) = self.subscriber.take(now, roster, Cause::Changed) else {
            assert!(due.is_none_or(|due| due > now));
            return;
        };
        assert!(now >= self.last + MIN_INTERVAL);
        self.last = now;
        self.hear(&body);
        self.check(roster);
    }

    fn hear(&mut self, body: &crate::Body) {
        let document = read(&body.content).unwrap();
        assert_eq!(self.replica.apply(document), Ok(Applied::Done));
    }

    /// What was put together is what the roster says, but for the order of users and endpoints.
    fn check(&self, roster: &Roster) {
        let sorted = |mut conference: Conference| {
            conference.users.sort_by(|a, b| a.entity.cmp(&b.entity));
            for user in &mut conference.users {
                user.endpoints.sort_by(|a, b| a.entity.cmp(&b.entity));
            }
            conference
        };
        let heard = self.replica.conference().unwrap().clone();
        assert_eq!(sorted(heard), sorted(roster.conference()));
    }
}

proptest! {
    #[test]
    fn every_subscriber_learns_what_the_roster_says(
        steps in prop::collection::vec(any_step(), 1..60),
        // Many others, so that a partial document is shorter most of the time; or none.
        others in prop_oneof![Just(0), Just(20)],
    ) {
        let mut now = epoch();
        let mut roster = roster();
        for number in 0..others {
            roster.update_user(user(&anonymous(number), &[("1", Status::Connected)])).unwrap();
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for step in steps.into_iter().chain([Step::Wait(5)]) {
            match step {
                Step::Update(user) => roster.update_user(user).unwrap(),
                Step::Remove(number) => {
                    roster.remove_user(&name(number));
                }
                Step::Lock(locked) => roster.set_locked(locked),
                Step::Describe(display_text) => {
                    roster.set_description(Description { display_text, ..description() });
                }
                Step::Wait(seconds) => {
                    for _ in 0..seconds {
                        now += Duration::from_secs(1);
                        listeners.iter_mut().for_each(|listener| listener.poll(now, &roster));
                    }
                }
                Step::Subscribe if listeners.len() < 4 => {
                    let (subscriber, replica) = subscribe(&roster, now);
                    let listener = Listener { subscriber, replica, last: now };
                    listener.check(&roster);
                    listeners.push(listener);
                }
                Step::Refresh(number) => {
                    if let Some(listener) = listeners.get_mut(number) {
                        let body = listener.subscriber.take(now, &roster, Cause::Immediate).unwrap();
                        listener.last = now;
                        listener.hear(&body);
                        listener.check(&roster);
                    }
                }
                Step::Unsubscribe(number) if number < listeners.len() => {
                    listeners.remove(number);
                }
                Step::Subscribe | Step::Unsubscribe(_) => {}
            }
            let participating = roster.users().filter(|user| {
                user.endpoints.iter().any(|endpoint| matches!(
                    endpoint.status,
                    None | Some(Status::Connected | Status::OnHold | Status::MutedViaFocus)
                ))
            });
            let count = participating.count() as u32;
            prop_assert_eq!(roster.conference().state.user_count, Some(count));
        }
        for listener in &listeners {
            prop_assert_eq!(listener.subscriber.due(now, &roster), None);
            listener.check(&roster);
        }
    }

    #[test]
    fn written_and_read_again(users in prop::collection::vec(any_user(), 0..4)) {
        let mut roster = roster();
        for user in users {
            roster.update_user(user).unwrap();
        }
        fuzz::document(roster.conference().to_xml(1).as_bytes());
        let (_, replica) = subscribe(&roster, epoch());
        prop_assert_eq!(replica.conference(), Some(&roster.conference()));
    }

    #[test]
    fn spoiled_documents_never_panic(
        users in prop::collection::vec(any_user(), 0..4),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut roster = roster();
        for user in users {
            roster.update_user(user).unwrap();
        }
        let mut xml = roster.conference().to_xml(1).into_bytes();
        for (place, byte) in spoils {
            let place = place.index(xml.len());
            xml[place] = byte;
        }
        fuzz::document(&xml);
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        fuzz::document(&bytes);
    }
}
