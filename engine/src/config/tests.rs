//! The configuration from the outside: what is given, and the config or the line of error it makes.

use std::{collections::BTreeSet, fs, path::PathBuf};

use sip::Transport;

use super::{values::KEYS, *};

mod sections;

const CORES: [usize; 2] = [0, 1];

fn load(toml: &str, environment: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
    let mut values = Values::default();
    values.add_toml("plenum.toml", toml)?;
    values.add_environment(
        environment
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
    )?;
    for set in sets {
        values.add_set(set)?;
    }
    Config::from_values(values, &CORES)
}

fn set(set: &str) -> Config {
    load("", &[], &[set]).unwrap()
}

fn defaults() -> Config {
    load("", &[], &[]).unwrap()
}

#[track_caller]
fn check_error(toml: &str, sets: &[&str], expected: &str) {
    let error = load(toml, &[], sets).unwrap_err().to_string();
    assert_eq!(error, expected);
}

fn example() -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("example.toml");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

#[test]
fn the_example_is_exactly_the_defaults() {
    let (path, _) = example();
    let from_file = Config::load(Some(&path), std::iter::empty(), &[], &CORES).unwrap();
    assert_eq!(
        from_file,
        Config::load(None, std::iter::empty(), &[], &CORES).unwrap()
    );
}

#[test]
fn the_example_gives_every_key_and_a_reason_for_it() {
    let (_, text) = example();
    let mut values = Values::default();
    values.add_toml("example.toml", &text).unwrap();
    let given: BTreeSet<&str> = values.unread().into_iter().collect();
    assert_eq!(given, KEYS.into_iter().collect());
    let mut above = "";
    for line in text.lines() {
        let is_key = line.contains('=') && !line.starts_with('#');
        assert!(!is_key || above.starts_with('#'), "no reason above {line}");
        above = line;
    }
}

#[test]
fn every_key_is_read() {
    let (_, text) = example();
    let mut values = Values::default();
    values.add_toml("example.toml", &text).unwrap();
    let sections: Vec<Result<(), ConfigError>> = vec![
        ServerConfig::from_values(&mut values, &CORES).map(drop),
        SipConfig::from_values(&mut values).map(drop),
        AuthConfig::from_values(&mut values).map(drop),
        AbuseConfig::from_values(&mut values).map(drop),
        RtpConfig::from_values(&mut values).map(drop),
        LoadConfig::from_values(&mut values).map(drop),
        ClusterConfig::from_values(&mut values).map(drop),
        RoomsConfig::from_values(&mut values).map(drop),
        HttpConfig::from_values(&mut values).map(drop),
        LogConfig::from_values(&mut values).map(drop),
        TraceConfig::from_values(&mut values).map(drop),
    ];
    assert!(sections.iter().all(Result::is_ok), "{sections:?}");
    assert_eq!(values.unread(), Vec::<&str>::new());
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = defaults();
    assert_eq!(config.server.id.as_str(), "A");
    assert_eq!(config.server.cores, CORES);
    assert_eq!(
        config
            .sip
            .listen
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"]
    );
    let abuse = &config.abuse;
    assert_eq!(
        (abuse.fault_rate, abuse.mute_s, abuse.flood_rate),
        (10, 60, 0)
    );
    assert!(abuse.trusted.is_empty());
    assert_eq!(abuse.drop_user_agents.len(), 7);
    assert_eq!(abuse.drop_user_agents[3], "vaxsipuseragent");
    assert_eq!(
        config.rtp.ports,
        PortRange {
            low: 16_384,
            high: 32_767
        }
    );
    assert_eq!(
        (config.load.max, config.load.min, config.load.hot_max),
        (0, 0, 0.9)
    );
    assert_eq!(
        (config.rooms.auto_create, config.rooms.max_talkers),
        (true, 8)
    );
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(
        config.log,
        LogConfig {
            level: LogLevel::Info,
            format: LogFormat::Text
        }
    );
}

#[test]
fn later_layers_win() {
    let toml = "[rooms]\nmax_talkers = 2\nmax_participants = 5\n[load.weights]\nsip = 3\n";
    let environment = [
        ("PLENUM_ROOMS_MAX_TALKERS", "3"),
        ("PLENUM_LOAD_WEIGHTS_SIP", "4.5"),
        ("PLENUM_SERVER_ID", "B"),
    ];
    let config = load(
        toml,
        &environment,
        &[
            "rooms.max_talkers=4",
            "rooms.max_talkers = 6",
            "server.id=C",
        ],
    )
    .unwrap();
    assert_eq!(
        (config.rooms.max_talkers, config.rooms.max_participants),
        (6, 5)
    );
    assert_eq!(
        config.load.weights,
        Weights {
            sip: 4.5,
            audio: 1.0,
            video: 1.0
        }
    );
    assert_eq!(config.server.id.as_str(), "C");
}

#[test]
fn sets_are_split_at_the_first_equals_sign() {
    let config = set("cluster.reserved=C=sip:cfw@127.0.0.1:5080");
    let entry = ("C".parse().unwrap(), "sip:cfw@127.0.0.1:5080".to_owned());
    assert_eq!(config.cluster.reserved, [entry]);
    check_error("", &["rooms"], "--set rooms: expected section.key=value");
}

#[test]
fn lists_in_text_are_comma_separated() {
    let config = set("sip.listen=udp:127.0.0.1:5061, tcp:[::1]:5062");
    assert_eq!(config.sip.listen[1].transport, Transport::Tcp);
    assert_eq!(config.sip.listen[1].address, "[::1]:5062".parse().unwrap());
    assert_eq!(set("cluster.trusted=").cluster.trusted, []);
    assert_eq!(set("rooms.names=blue,green").rooms.names, ["blue", "green"]);
}

#[test]
fn unknown_keys_are_named_wherever_they_stand() {
    check_error(
        "[rooms]\nmax_talkerz = 3",
        &[],
        "rooms.max_talkerz: unknown key",
    );
    check_error("id = 3", &[], "id: unknown key");
    check_error(
        "[load]\nweights = { dtmf = 1 }",
        &[],
        "load.weights.dtmf: unknown key",
    );
    check_error(
        "[server.id]\nname = 1",
        &[],
        "server.id: expected a string, not a table",
    );
    check_error("", &["room.max_talkers=3"], "room.max_talkers: unknown key");
    check_error(
        "",
        &["rooms=3"],
        "rooms: is a section; give its keys, such as rooms.auto_create",
    );
    check_error(
        "[load]\nweights = 2",
        &[],
        "load.weights: is a section; give its keys, such as load.weights.sip",
    );
    let error = load("", &[("PLENUM_ROOMS_MAX_TALKERZ", "3")], &[]).unwrap_err();
    assert_eq!(error.to_string(), "PLENUM_ROOMS_MAX_TALKERZ: unknown key");
    // Not ours: no section, or another program's.
    assert!(
        load(
            "",
            &[
                ("PLENUM_SERVICE_HOST", "10.0.0.1"),
                ("PLENUM", "1"),
                ("HOME", "/")
            ],
            &[]
        )
        .is_ok()
    );
}

#[test]
fn a_broken_file_is_one_line_with_its_line_number() {
    let error = load("[rooms]\n\nmax_talkers = = 3\n", &[], &[]).unwrap_err();
    assert_eq!(error.key, "plenum.toml:3");
    assert_eq!(error.to_string().lines().count(), 1);
    let missing = Config::load(
        Some(Path::new("nowhere.toml")),
        std::iter::empty(),
        &[],
        &CORES,
    )
    .unwrap_err();
    assert_eq!(missing.key, "nowhere.toml");
    let twice = load("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", &[], &[]).unwrap_err();
    assert_eq!(twice.key, "plenum.toml:3");
}

#[test]
fn values_of_the_wrong_type_or_range() {
    for (given, expected) in [
        (
            "[rooms]\nmax_talkers = \"8\"",
            "rooms.max_talkers: expected a whole number, not a string",
        ),
        (
            "[rooms]\nmax_talkers = 0",
            "rooms.max_talkers: 0 is not in 1-64",
        ),
        (
            "[rooms]\nmax_talkers = 65",
            "rooms.max_talkers: 65 is not in 1-64",
        ),
        (
            "[rooms]\nmax_participants = -1",
            "rooms.max_participants: -1 is not in 0-4294967295",
        ),
        (
            "[rooms]\nauto_create = 1",
            "rooms.auto_create: expected true or false, not an integer",
        ),
        (
            "[rooms]\nnames = \"blue\"",
            "rooms.names: expected a list of strings, not a string",
        ),
        (
            "[rooms]\nnames = [1]",
            "rooms.names: expected a list of strings, not an integer",
        ),
        (
            "[server]\nid = 7",
            "server.id: expected a string, not an integer",
        ),
        (
            "[load.weights]\nsip = nan",
            "load.weights.sip: NaN is not a finite number of at least 0",
        ),
        (
            "[load.weights]\nsip = true",
            "load.weights.sip: expected a number, not a boolean",
        ),
    ] {
        check_error(given, &[], expected);
    }
    for (given, expected) in [
        (
            "rooms.max_talkers=many",
            "rooms.max_talkers: \"many\" is not a whole number",
        ),
        (
            "rooms.auto_create=yes",
            "rooms.auto_create: \"yes\" is neither true nor false",
        ),
        (
            "rooms.answer_after_ms=60001",
            "rooms.answer_after_ms: 60001 is not in 0-60000",
        ),
        ("rtp.jitter_ms=201", "rtp.jitter_ms: 201 is not in 0-200"),
        (
            "load.weights.audio=-1",
            "load.weights.audio: -1 is not a finite number of at least 0",
        ),
        (
            "load.weights.video=inf",
            "load.weights.video: inf is not a finite number of at least 0",
        ),
        (
            "server.drain_timeout_s=86401",
            "server.drain_timeout_s: 86401 is not in 0-86400",
        ),
        (
            "log.level=loud",
            "log.level: \"loud\" is none of error, warn, info, debug, trace",
        ),
        (
            "log.format=xml",
            "log.format: \"xml\" is neither text nor json",
        ),
        (
            "http.listen=8080",
            "http.listen: \"8080\" is not an address and port such as 127.0.0.1:5060 or [::1]:5060",
        ),
    ] {
        check_error("", &[given], expected);
    }
}

#[test]
fn a_reload_takes_what_can_change_and_names_the_rest() {
    let old = defaults();
    let sets = [
        "log.level=debug",
        "log.format=json",
        "load.max=9",
        "abuse.mute_s=5",
        "rooms.names=blue",
        "http.listen=127.0.0.1:1",
    ];
    let new = load("", &[], &sets).unwrap();
    let reload = old.reload_from(&new);
    assert_eq!(
        reload.taken_over,
        ["abuse.mute_s", "load.max", "rooms.names", "log.level"]
    );
    assert_eq!(reload.config.abuse, new.abuse);
    assert_eq!(reload.needs_restart, ["http.listen", "log.format"]);
    assert_eq!(
        reload.config.log,
        LogConfig {
            level: LogLevel::Debug,
            format: LogFormat::Text
        }
    );
    assert_eq!(
        (reload.config.load, &reload.config.rooms),
        (new.load, &new.rooms)
    );
    assert_eq!(reload.config.http, old.http);
    assert_eq!(
        old.reload_from(&old),
        Reload {
            config: old.clone(),
            taken_over: vec![],
            needs_restart: vec![]
        }
    );
}

#[test]
fn every_key_is_compared_on_reload() {
    let sets = [
        "server.id=B",
        "server.cores=0",
        "server.drain_timeout_s=1",
        "sip.listen=udp:127.0.0.1:1",
        "sip.advertise=a",
        "abuse.fault_rate=1",
        "abuse.mute_s=1",
        "abuse.flood_rate=1",
        "abuse.trusted=::2",
        "abuse.drop_user_agents=x",
        "sip.session_expires_s=7",
        "sip.session_min_s=7",
        "sip.outbound_proxy=udp:127.0.0.1:7",
        "sip.outbound_user=x",
        "sip.outbound_password=x",
        "auth.realm=x",
        "auth.users=x",
        "auth.secret=0123456789abcdef0123456789abcdef",
        "auth.auth_int=true",
        "auth.trusted=::2",
        "sip.tls.certificate=a",
        "sip.tls.key=a",
        "sip.tls.client_ca=a",
        "sip.tls.ca=a",
        "sip.origins=https://a.example",
        "rtp.address=127.0.0.2",
        "rtp.advertise=127.0.0.3",
        "rtp.ports=2-3",
        "rtp.jitter_ms=1",
        "rtp.timeout_s=1",
        "rtp.shared_ports=false",
        "load.max=7",
        "load.min=1",
        "load.hot_max=0.5",
        "load.weights.sip=2",
        "load.weights.audio=2",
        "load.weights.video=2",
        "cluster.peers=sip:cfw@127.0.0.1:7",
        "cluster.reserved=C=sip:cfw@127.0.0.1:7",
        "cluster.trusted=::2",
        "cluster.redirect=relay",
        "cluster.listen=127.0.0.1:7",
        "cluster.tls=true",
        "cluster.trunk_codec=opus",
        "cluster.recall=false",
        "cluster.standby=true",
        "cluster.start_hook=a",
        "cluster.stop_hook=a",
        "cluster.drain_after_s=7",
        "cluster.drain_deadline_s=7",
        "cluster.grow_at=0.5",
        "rooms.auto_create=false",
        "rooms.max_participants=1",
        "rooms.max_talkers=1",
        "rooms.span_at=1",
        "rooms.answer_after_ms=1",
        "rooms.names=a",
        "rooms.access=authenticated",
        "rooms.policies=a=pin:123",
        "rooms.control=nobody",
        "rooms.notify_ms=7",
        "http.listen=127.0.0.1:1",
        "log.level=warn",
        "log.format=json",
        "trace.keep=1",
        "trace.hep=udp:127.0.0.1:9060",
        "trace.hep_id=1",
        "trace.hep_password=a",
    ];
    let old = defaults();
    for set in sets {
        // Neither file goes without the other.
        let pair: &[&str] = if ["certificate", "key", "cluster.tls"]
            .iter()
            .any(|name| set.contains(name))
        {
            &["sip.tls.certificate=b", "sip.tls.key=b", set]
        } else {
            &[set]
        };
        let reload = old.reload_from(&load("", &[], pair).unwrap());
        let changed = [reload.taken_over, reload.needs_restart].concat();
        let key = set.split('=').next().unwrap();
        assert!(
            changed.iter().any(|changed| key.starts_with(changed)),
            "{key} not in {changed:?}"
        );
    }
    let covered = sets.iter().map(|set| set.split('=').next().unwrap());
    assert_eq!(covered.collect::<BTreeSet<_>>(), KEYS.into_iter().collect());
}
