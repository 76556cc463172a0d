//! One conference on three servers: whoever speaks on one is heard on all, once and without much delay, and
//! whoever looks at it, mutes or throws out, does so from any of them.

#[path = "common/agent.rs"]
mod agent;
#[path = "common/capture.rs"]
mod capture;
mod common;
#[path = "common/crowd.rs"]
mod crowd;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use agent::Agent;
use capture::{Capture, Filter, Flow};
use common::Server;
use common::cluster::{listed, mesh, talking, wait_for};
use crowd::{Crowd, Heard, NEITHER, TONE_RMS, Voice, Who};
use sip::conference_info::{Replica, read};

/// So much later than a local caller may one on another server hear.
const DELAY_MAX: Duration = Duration::from_millis(30);

/// Delay is measured so often until it is below the bound. A machine that runs something else meanwhile
/// makes it longer, nothing makes it shorter.
const ROUNDS: usize = 8;

/// Bursts of one round.
const BURSTS: usize = 10;

/// Packets that are looked at for their level: half a second.
const PACKETS: usize = 25;

struct Conference {
    crowd: Crowd,
    servers: [Server; 3],
    speaker: Who,
    /// On each server one.
    listeners: [Who; 3],
}

impl Conference {
    /// The speaker is on the first server.
    fn new(voice: Voice, sets: &[&str]) -> Self {
        let servers = mesh(["A", "B", "C"], sets);
        let crowd = Crowd::new();
        let speaker = crowd.call("speaker", &servers[0].uri("lobby"), NEITHER, voice);
        let mut names = ["here", "there", "yonder"].into_iter();
        let listeners = [0, 1, 2].map(|number| {
            let name = names.next().expect("one for each");
            let uri = servers[number].uri("lobby");
            crowd.call(name, &uri, NEITHER, Voice::Silence)
        });
        crowd.wait_until("all are in", |crowd| crowd.up() == 4);
        let conference = Self {
            crowd,
            servers,
            speaker,
            listeners,
        };
        for server in &conference.servers {
            wait_for("everybody is listed everywhere", || {
                listed(server, "lobby").len() == 4
            });
        }
        conference
    }

    /// Waits until a phone has heard so many packets like this in a row at last, and gives them.
    #[track_caller]
    fn hear(&self, who: Who, what: &str, is_it: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        self.crowd.forget(who);
        let mut found = Vec::new();
        self.crowd.wait_until(what, |crowd| {
            let heard = crowd.heard(who);
            found = heard[heard.len().saturating_sub(PACKETS)..].to_vec();
            found.len() == PACKETS && found.iter().all(&is_it)
        });
        found
    }

    fn hear_loud(&self, who: Who) -> Vec<Heard> {
        self.hear(who, "it is loud", Heard::is_loud)
    }

    fn hear_silence(&self, who: Who) -> Vec<Heard> {
        self.hear(who, "it is silent", |heard| !heard.is_loud())
    }

    fn end(self) {
        self.crowd.hang_up_all();
        wait_for("all have left everywhere, and trunks with them", || {
            self.servers.iter().all(|server| {
                server.participants() == 0 && server.metric("plenum_sip_dialogs") <= 2.0
            })
        });
        for server in &self.servers {
            assert_eq!(server.metric("plenum_room_panics_total"), 0.0);
        }
    }
}

fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> T {
    values.sort_unstable_by(|one, other| one.partial_cmp(other).expect("numbers"));
    values[values.len() / 2]
}

#[test]
fn a_tone_is_heard_on_every_server_once() {
    let conference = Conference::new(Voice::Tone { hz: 500.0 }, &[]);
    for &who in &conference.listeners {
        // A second copy, by whatever way, would be louder or hollow: 500 Hz repeat every 2 ms, and copies
        // come by whole milliseconds later.
        let heard = conference.hear_loud(who);
        let level = median(heard.iter().map(|one| one.rms).collect());
        assert!(
            (level / TONE_RMS - 1.0).abs() < 0.05,
            "{level} of {TONE_RMS}"
        );
    }
    let speaker = conference.crowd.entity(conference.speaker);
    for server in &conference.servers {
        wait_for("it is known everywhere who talks", || {
            talking(server, "lobby") == [speaker.as_str()]
        });
    }
    // Nor does the speaker hear himself, come back from elsewhere.
    conference.hear_silence(conference.speaker);
    conference.end();
}

#[test]
fn speakers_on_different_servers_are_mixed() {
    let conference = Conference::new(Voice::Tone { hz: 500.0 }, &[]);
    let [here, there, yonder] = conference.listeners;
    conference.crowd.say(yonder, Voice::Tone { hz: 800.0 });
    let table = [
        // Powers add up.
        (here, 2.0_f64.sqrt()),
        (there, 2.0_f64.sqrt()),
        // Each of the two hears the other alone.
        (conference.speaker, 1.0),
        (yonder, 1.0),
    ];
    for (who, expected) in table {
        let expected = expected * TONE_RMS;
        let is_it = |one: &Heard| (one.rms / expected - 1.0).abs() < 0.1;
        conference.hear(who, "as loud as those who speak", is_it);
    }
    conference.end();
}

/// A packet between two servers: who is in it, and how loud (RFC 3550 §5.1, RFC 6465, RFC 8285 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mixed {
    from: SocketAddr,
    ssrc: u32,
    talkers: Vec<u32>,
    levels: Vec<u8>,
}

fn mixed((flow, packet): &(Flow, Vec<u8>)) -> Option<Mixed> {
    let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let first = *packet.first()?;
    // RTCP has its own numbers (RFC 5761 §4).
    if first >> 6 != 2 || (192..=223).contains(packet.get(1)?) {
        return None;
    }
    let count = usize::from(first & 0x0F);
    let talkers = (0..count)
        .map(|i| word(12 + 4 * i))
        .collect::<Option<Vec<_>>>()?;
    let extension = 12 + 4 * count;
    let mut levels = Vec::new();
    if first & 0x10 != 0 && word(extension)? >> 16 == 0xBEDE {
        let len = usize::from(packet.get(extension + 4)? & 0x0F) + 1;
        levels = packet.get(extension + 5..extension + 5 + len)?.to_vec();
    }
    Some(Mixed {
        from: flow.0,
        ssrc: word(8)?,
        talkers,
        levels,
    })
}

#[test]
fn between_servers_only_local_talkers_travel_and_are_named() {
    let conference = Conference::new(Voice::Tone { hz: 500.0 }, &[]);
    let rtp = conference.servers.each_ref().map(|server| server.rtp);
    let filter = Filter {
        rtp: rtp.to_vec(),
        ..Filter::default()
    };
    let Some(capture) = Capture::start(filter) else {
        return;
    };
    let of = |at: usize, capture: &Capture| -> Vec<Mixed> {
        let is_its = |one: &Mixed| (rtp[at].0..=rtp[at].1).contains(&one.from.port());
        let all = capture.media();
        all.iter().filter_map(mixed).filter(is_its).collect()
    };
    // A talks; B and C have nothing to add.
    let by_stream = |all: &[Mixed]| {
        let mut streams: BTreeMap<u32, Vec<Mixed>> = BTreeMap::new();
        for one in all.iter().filter(|one| !one.talkers.is_empty()) {
            streams.entry(one.ssrc).or_default().push(one.clone());
        }
        streams
    };
    let mut streams = BTreeMap::new();
    wait_for("A has spoken to both others", || {
        streams = by_stream(&of(0, &capture));
        streams.values().filter(|all| all.len() > 50).count() >= 2
    });
    assert_eq!(streams.len(), 2, "one stream to each of the others");
    // Levels rise for a moment at the beginning.
    let steady: Vec<&Mixed> = streams.values().flat_map(|all| &all[25..]).collect();
    let talkers = steady[0].talkers.clone();
    assert_eq!(talkers.len(), 1);
    for one in steady {
        assert_eq!((&one.talkers, one.levels.len()), (&talkers, 1), "{one:?}");
        // A sine of this size is 15 dB below the loudest square wave.
        assert!((10..=20).contains(&(one.levels[0] & 0x7F)), "{one:?}");
    }
    assert!(of(1, &capture).iter().all(|one| one.talkers.is_empty()));
    assert!(of(2, &capture).iter().all(|one| one.talkers.is_empty()));

    // Somebody talks on C too: his sound goes to A and B, A's to B and C, and B passes nothing on.
    let [_, there, yonder] = conference.listeners;
    conference.crowd.say(yonder, Voice::Tone { hz: 800.0 });
    conference.hear(there, "both are heard", |one| one.rms > 1.2 * TONE_RMS);
    let before = of(0, &capture).len() + of(2, &capture).len();
    wait_for("some more goes by", || {
        of(0, &capture).len() + of(2, &capture).len() > (before + 200).min(1_000)
    });
    for at in [0, 2] {
        let all = of(at, &capture);
        assert!(
            all.iter().all(|one| one.talkers.len() <= 1),
            "a sum of both travels"
        );
    }
    let from_c = of(2, &capture)
        .into_iter()
        .filter(|one| !one.talkers.is_empty());
    assert!(from_c.count() > 0);
    assert!(of(1, &capture).iter().all(|one| one.talkers.is_empty()));
    conference.end();
}

#[test]
fn opus_between_servers_is_as_loud() {
    let conference = Conference::new(Voice::Tone { hz: 500.0 }, &["cluster.trunk_codec=opus"]);
    for &who in &conference.listeners {
        let heard = conference.hear_loud(who);
        let level = median(heard.iter().map(|one| one.rms).collect());
        assert!(
            (level / TONE_RMS - 1.0).abs() < 0.2,
            "{level} of {TONE_RMS}"
        );
    }
    conference.end();
}

/// Medians of many bursts, local and remote ones measured at once; see [`ROUNDS`].
#[test]
fn another_server_is_heard_hardly_later() {
    let conference = Conference::new(Voice::Bursts, &[]);
    let crowd = &conference.crowd;
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        crowd.forget(conference.speaker);
        for &who in &conference.listeners {
            crowd.forget(who);
        }
        let delays = |who: Who| -> Vec<Duration> {
            let heard = crowd.heard(who);
            let begins = crowd.bursts(conference.speaker).into_iter();
            begins
                .filter_map(|begin| {
                    let first = heard.iter().find(|one| one.is_loud() && one.at >= begin)?;
                    let delay = first.at - begin;
                    (delay < Duration::from_millis(600)).then_some(delay)
                })
                .collect()
        };
        crowd.wait_until("enough was heard", |_| {
            conference
                .listeners
                .iter()
                .all(|&who| delays(who).len() >= BURSTS)
        });
        let [here, there, yonder] = conference.listeners.map(|who| median(delays(who)));
        println!(
            "a burst is heard after {here:?} on its own server, {there:?} and {yonder:?} elsewhere"
        );
        seen.push((here, there, yonder));
        if there.max(yonder) <= here + DELAY_MAX {
            conference.end();
            return;
        }
    }
    panic!("never within {DELAY_MAX:?} of the local one: {seen:?}");
}

#[test]
fn whoever_looks_mutes_or_throws_out_does_so_from_any_server() {
    let conference = Conference::new(Voice::Tone { hz: 500.0 }, &["rooms.notify_ms=100"]);
    let Conference {
        crowd,
        servers,
        speaker,
        listeners: [here, there, yonder],
    } = &conference;
    let all: BTreeSet<String> = [*speaker, *here, *there, *yonder]
        .map(|who| crowd.entity(who))
        .into();

    // The roster by SIP (RFC 4575), of a server on which there is one of the four.
    let mut watcher = Agent::new(&servers[2], "watcher");
    let mut dialog = watcher.dialog(&servers[2].uri("lobby"));
    let lines = ["Event: conference", "Expires: 600"];
    let answer = watcher.ask(&mut dialog, "SUBSCRIBE", &lines, None);
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    let mut replica = Replica::default();
    let mut users = |until: &BTreeSet<String>| loop {
        let notify = watcher.accept("NOTIFY");
        let document = read(notify.body.as_bytes()).expect("a document");
        replica.apply(document).expect("no gap");
        let conference = replica.conference().expect("it is not over");
        let users = conference.users.iter().map(|user| user.entity.clone());
        if users.collect::<BTreeSet<_>>() == *until {
            return;
        }
    };
    users(&all);

    // Muted by a server that he is not on, whose listeners and all others hear him no more.
    let path = |who: Who| {
        let entity = crowd.entity(who).replace(':', "%3A").replace('@', "%40");
        format!("/api/v1/conferences/lobby/participants/{entity}")
    };
    conference.hear_loud(*there);
    let muted = |is_muted: bool| {
        let action = if is_muted { "mute" } else { "unmute" };
        let (code, body) = servers[1].post(&format!("{}/{action}", path(*speaker)), "");
        assert!((200..300).contains(&code), "{code} {body}");
        for server in servers {
            wait_for("all see it", || {
                let list = listed(server, "lobby");
                let entity = crowd.entity(*speaker);
                list.iter()
                    .any(|one| one.entity == entity && one.muted == is_muted)
            });
        }
    };
    muted(true);
    for &who in &[*here, *there, *yonder] {
        conference.hear_silence(who);
    }
    muted(false);
    for &who in &[*here, *there, *yonder] {
        conference.hear_loud(who);
    }

    // Thrown out by a server that he is not on.
    let entity = crowd.entity(*here);
    let (code, body) = common::http(servers[2].http, "DELETE", &path(*here), "");
    assert!((200..300).contains(&code), "{code} {body}");
    crowd.wait_until("he is hung up", |crowd| crowd.story(*here).byes == 1);
    let left: BTreeSet<String> = all.into_iter().filter(|one| *one != entity).collect();
    for server in servers {
        wait_for("he is gone everywhere", || {
            let list = listed(server, "lobby").into_iter().map(|one| one.entity);
            list.collect::<BTreeSet<_>>() == left
        });
    }
    users(&left);
    conference.end();
}
