//! The configuration from the outside: what is given, and the config or the line of error it makes.

use std::{collections::BTreeSet, fs, path::PathBuf};

use sip::Transport;

use super::{values::KEYS, *};

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
fn server_ids() {
    assert_eq!(
        set("server.id=eu.west_1-b").server.id.as_str(),
        "eu.west_1-b"
    );
    check_error(
        "",
        &["server.id="],
        "server.id: a server id must not be empty",
    );
    assert_eq!(
        load("", &[], &["server.id=a b"]).unwrap_err().key,
        "server.id"
    );
}

#[test]
fn cores_exist_here() {
    let cores = |text: &str, available: &[usize]| parse::cores(text, available);
    assert_eq!(cores("all", &[4, 0, 2]), Ok(vec![0, 2, 4]));
    assert_eq!(cores("0-2,6", &[0, 1, 2, 3, 6]), Ok(vec![0, 1, 2, 6]));
    assert_eq!(cores("6,0", &[0, 6]), Ok(vec![0, 6]));
    for (text, reason) in [
        ("9", "core 9 does not exist here (0-1,4)"),
        (
            "0-18446744073709551615",
            "core 2 does not exist here (0-1,4)",
        ),
        ("0,0-1", "core 0 stands twice"),
        ("4-0", "4 is above 0 in \"4-0\""),
        ("", "\"\" is neither a core nor a range such as 0-3"),
        ("0,,1", "\"\" is neither a core nor a range such as 0-3"),
        ("1-x", "\"1-x\" is neither a core nor a range such as 0-3"),
        ("-1", "\"-1\" is neither a core nor a range such as 0-3"),
    ] {
        assert_eq!(cores(text, &[0, 1, 4]), Err(reason.to_owned()), "{text}");
    }
    check_error(
        "",
        &["server.cores=9"],
        "server.cores: core 9 does not exist here (0-1)",
    );
    assert!(cores("all", &[]).is_err());
}

#[test]
fn listening_and_advertised_addresses() {
    check_error(
        "",
        &["sip.listen="],
        "sip.listen: empty: no call could ever arrive",
    );
    check_error(
        "",
        &["sip.listen=tls:127.0.0.1:5061"],
        "sip.tls.certificate: needed because sip.listen has tls:127.0.0.1:5061",
    );
    check_error(
        "",
        &["sip.listen=sctp:127.0.0.1:1"],
        "sip.listen: \"sctp:127.0.0.1:1\" does not begin with udp:, tcp:, tls:, ws: or wss:",
    );
    check_error(
        "",
        &["sip.listen=udp:127.0.0.1:5060,udp:127.0.0.1:5060"],
        "sip.listen: udp:127.0.0.1:5060 stands twice",
    );
    check_error(
        "",
        &["sip.listen=udp:0.0.0.0:5060"],
        "sip.advertise: needed because udp:0.0.0.0:5060 listens on every address and cannot stand in Contact",
    );
    check_error(
        "",
        &["rtp.address=0.0.0.0"],
        "rtp.advertise: needed because rtp.address 0.0.0.0 cannot stand in SDP",
    );
    check_error(
        "",
        &["rtp.advertise=::"],
        "rtp.advertise: :: cannot stand in SDP",
    );
    let config = load(
        "",
        &[],
        &["sip.listen=udp:0.0.0.0:5060", "sip.advertise=example.org"],
    )
    .unwrap();
    assert_eq!(
        config.sip.advertise,
        Some(Advertise {
            host: "example.org".to_owned(),
            port: None
        })
    );
}

#[test]
fn advertised_hosts() {
    for (text, host, port) in [
        ("sip.example.org:5080", "sip.example.org", Some(5080)),
        ("192.0.2.7", "192.0.2.7", None),
        ("[2001:db8::1]", "[2001:db8::1]", None),
        ("[2001:db8::1]:5060", "[2001:db8::1]", Some(5060)),
    ] {
        let advertise: Advertise = text.parse().unwrap();
        assert_eq!((advertise.host.as_str(), advertise.port), (host, port));
        assert_eq!(advertise.to_string(), text);
    }
    for text in [
        "a b",
        "host:",
        "host:0",
        "host:65536",
        "host:x",
        "[::1",
        "[::1]x",
        "2001:db8::1",
        "a..b",
        "-a",
        ":5060",
        "a;b",
    ] {
        assert!(text.parse::<Advertise>().is_err(), "{text}");
    }
}

#[test]
fn media_ports_hold_a_pair() {
    let pairs = |text: &str| text.parse::<PortRange>().map(PortRange::pairs);
    assert_eq!(pairs("16384-32767"), Ok(8_192));
    assert_eq!(pairs("10000-10001"), Ok(1));
    assert_eq!(pairs("10001-10003"), Ok(1));
    assert_eq!(pairs("1-65535"), Ok(32_767));
    for (text, reason) in [
        (
            "10001-10002",
            "10001-10002 holds no even port with its odd successor",
        ),
        (
            "65535-65535",
            "65535-65535 holds no even port with its odd successor",
        ),
        ("2-1", "2 is above 1"),
        ("0-10", "port 0 cannot be offered to a caller"),
        ("10", "\"10\" is not a range of ports such as 16384-32767"),
        (
            "1-65536",
            "\"1-65536\" is not a range of ports such as 16384-32767",
        ),
    ] {
        assert_eq!(pairs(text), Err(reason.to_owned()));
    }
}

#[test]
fn load_limits_are_ordered() {
    assert_eq!(
        load("", &[], &["load.max=500", "load.min=50"])
            .unwrap()
            .load
            .max,
        500
    );
    check_error(
        "",
        &["load.max=500", "load.min=500"],
        "load.min: 500 is not below load.max, which is 500",
    );
    let mut derived = load("", &[], &["load.min=400000"]).unwrap().load;
    assert_eq!(
        derived.derive(400_000).unwrap_err().to_string(),
        "load.min: 400000 is not below load.max, which is 400000"
    );
    let mut derived = load("", &[], &["load.min=400000"]).unwrap().load;
    derived.derive(400_001).unwrap();
    assert_eq!(derived.max, 400_001);
    let mut given = load("", &[], &["load.max=500"]).unwrap().load;
    given.derive(400_001).unwrap();
    assert_eq!(given.max, 500, "the operator's word counts");
    check_error(
        "",
        &["load.hot_max=1.1"],
        "load.hot_max: 1.1 is not above 0 and at most 1",
    );
}

#[test]
fn capture_servers_are_checked() {
    let config = load("", &[], &["trace.hep=udp:[::1]:9060", "trace.keep=65536"]).unwrap();
    assert_eq!(config.trace.hep, Some("[::1]:9060".parse().unwrap()));
    assert_eq!(config.trace.keep, 65_536);
    check_error(
        "",
        &["trace.keep=65537"],
        "trace.keep: 65537 is not in 0-65536",
    );
    for (text, reason) in [
        (
            "tcp:127.0.0.1:9060",
            "\"tcp:127.0.0.1:9060\" is not udp:ADDRESS:PORT such as udp:127.0.0.1:9060",
        ),
        (
            "udp:homer",
            "\"udp:homer\" is not udp:ADDRESS:PORT such as udp:127.0.0.1:9060",
        ),
        ("udp:0.0.0.0:9060", "nobody can be reached at 0.0.0.0:9060"),
    ] {
        check_error(
            "",
            &[&format!("trace.hep={text}")],
            &format!("trace.hep: {reason}"),
        );
    }
    let long = format!("trace.hep_password={}", "x".repeat(257));
    check_error("", &[&long], "trace.hep_password: longer than 256 octets");
}

#[test]
fn clusters_are_checked() {
    let config = set("cluster.peers=sip:cfw@127.0.0.1:5070, sip:cfw@b.example;transport=tcp");
    let peers = ["sip:cfw@127.0.0.1:5070", "sip:cfw@b.example;transport=tcp"];
    assert_eq!(config.cluster.peers, peers);
    for wrong in ["127.0.0.1:5070", "sip:cfw@a;transport=ws", "sip:cfw@a;b"] {
        check_error(
            "",
            &[&format!("cluster.peers={wrong}")],
            &format!("cluster.peers: \"{wrong}\" is not a URI such as sip:cfw@127.0.0.1:5070"),
        );
    }
    check_error(
        "",
        &["cluster.reserved=sip:cfw@a"],
        "cluster.reserved: \"sip:cfw@a\" is not svr-id=URI",
    );
    check_error(
        "",
        &["cluster.reserved=C=sip:cfw@a,C=sip:cfw@b"],
        "cluster.reserved: C stands twice",
    );
    check_error(
        "",
        &["cluster.redirect=303"],
        "cluster.redirect: \"303\" is neither 302 nor relay",
    );
    check_error(
        "",
        &["cluster.trunk_codec=gsm"],
        "cluster.trunk_codec: \"gsm\" is neither l16 nor opus",
    );
    for wrong in ["0", "1.5"] {
        check_error(
            "",
            &[&format!("cluster.grow_at={wrong}")],
            &format!("cluster.grow_at: {wrong} is not above 0 and at most 1"),
        );
    }
    check_error(
        "",
        &["cluster.tls=true"],
        "sip.tls.certificate: needed because cluster.tls is true",
    );
    check_error(
        "",
        &["cluster.listen=0.0.0.0:7563"],
        "sip.advertise: needed because cluster.listen is 0.0.0.0:7563, which nobody can call",
    );
    assert_eq!(
        set("cluster.redirect=relay").cluster.redirect,
        Redirect::Relay
    );
}

#[test]
fn trusted_networks() {
    let contains = |network: &str, address: &str| {
        network
            .parse::<Network>()
            .map(|network| network.contains(address.parse().unwrap()))
    };
    assert_eq!(contains("127.0.0.0/8", "127.9.9.9"), Ok(true));
    assert_eq!(contains("127.0.0.0/8", "128.0.0.1"), Ok(false));
    assert_eq!(contains("127.0.0.0/8", "::ffff:127.0.0.1"), Ok(true));
    assert_eq!(contains("::1", "::1"), Ok(true));
    assert_eq!(contains("::1", "::2"), Ok(false));
    assert_eq!(contains("0.0.0.0/0", "192.0.2.1"), Ok(true));
    assert_eq!(contains("0.0.0.0/0", "::1"), Ok(false));
    assert_eq!(contains("2001:db8::/32", "2001:db8:1::9"), Ok(true));
    for text in [
        "",
        "127.0.0.1/33",
        "::/129",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "localhost",
    ] {
        assert!(text.parse::<Network>().is_err(), "{text}");
    }
}

#[test]
fn senders_that_are_not_answered() {
    let config = load("", &[], &["abuse.drop_user_agents=Evil/1.0, sip scan"]).unwrap();
    assert_eq!(config.abuse.drop_user_agents, ["evil/1.0", "sip scan"]);
    check_error(
        "[abuse]\ndrop_user_agents = [\"\"]",
        &[],
        "abuse.drop_user_agents: \"\" is not 1-64 printable characters",
    );
    check_error("", &["abuse.mute_s=0"], "abuse.mute_s: 0 is not in 1-86400");
}

#[test]
fn room_names() {
    let long = format!("rooms.names={}", "r".repeat(65));
    for wrong in [
        "rooms.names=a b",
        "rooms.names=a,",
        "rooms.names=sip:a",
        long.as_str(),
    ] {
        assert_eq!(
            load("", &[], &[wrong]).unwrap_err().key,
            "rooms.names",
            "{wrong}"
        );
    }
    check_error(
        "",
        &["rooms.names=cfw"],
        "rooms.names: \"cfw\" is an address of the server itself",
    );
    check_error("", &["rooms.names=a,a"], "rooms.names: a stands twice");
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
fn certificates_stand_in_a_section_of_their_own() {
    let toml = "[sip]\nlisten = [\"wss:[::1]:443\"]\norigins = [\"https://a.example\"]\n\
                [sip.tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";
    let config = load(toml, &[("PLENUM_SIP_TLS_CLIENT_CA", "ca.pem")], &[]).unwrap();
    assert_eq!(config.sip.listen[0].transport, Transport::Wss);
    assert_eq!(
        config.sip.tls,
        TlsConfig {
            certificate: Some(CertificateFiles {
                chain: "a.pem".into(),
                key: "a.key".into(),
            }),
            client_ca: Some("ca.pem".into()),
            ca: None,
        }
    );
    assert_eq!(config.sip.origins, ["https://a.example"]);
    assert_eq!(
        set("sip.listen=ws:127.0.0.1:80").sip.tls,
        TlsConfig::default()
    );
    let wss = "sip.listen=udp:127.0.0.1:1,wss:127.0.0.1:2";
    check_error(
        "",
        &[wss],
        "sip.tls.certificate: needed because sip.listen has wss:127.0.0.1:2",
    );
    check_error(
        "",
        &[wss, "sip.tls.certificate=a"],
        "sip.tls.key: needed because sip.tls.certificate is given",
    );
    check_error(
        "",
        &["sip.tls.key=a"],
        "sip.tls.certificate: needed because sip.tls.key is given",
    );
    check_error("", &["sip.tls.password=a"], "sip.tls.password: unknown key");
    check_error(
        "",
        &["sip.tls=a"],
        "sip.tls: is a section; give its keys, such as sip.tls.certificate",
    );
    for wrong in ["example.org", "https://", "https://example.org/"] {
        check_error(
            "",
            &[&format!("sip.origins={wrong}")],
            &format!("sip.origins: \"{wrong}\" is not an origin such as https://example.org"),
        );
    }
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
