//! What may stand in each section.

use super::*;

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
