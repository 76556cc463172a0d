//! Phones that other people wrote: baresip and linphone in one room, over every transport.

#[path = "common/certificates.rs"]
mod certificates;
mod common;

use std::net::SocketAddr;

use certificates::Authority;
use common::baresip::Baresip;
use common::linphone::Linphone;
use common::program::is_installed;
use common::registrar::Registrar;
use common::{Phone, Server, free_port, read_wav, scratch, share_of_pitch};
use simd_json::prelude::*;

const BARESIP_HZ: f64 = 500.0;
const LINPHONE_HZ: f64 = 800.0;

/// Samples of a second.
const SECOND: usize = 8_000;

/// A tone that is there at all, beside another one as loud; one that is not, beside what a codec adds.
const HEARD: f64 = 0.3;
const UNHEARD: f64 = 0.01;

#[test]
fn phones_meet_over_udp() {
    phones_meet("udp");
}

#[test]
fn phones_meet_over_tcp() {
    phones_meet("tcp");
}

/// Both believe the server's certificate, because of who signed it.
#[test]
fn phones_meet_over_tls() {
    phones_meet("tls");
}

/// They hear each other and not themselves, are not heard or do not hear while on hold, and leave.
fn phones_meet(transport: &str) {
    if !(is_installed("baresip") && is_installed("linphonec")) {
        return;
    }
    let authority = Authority::new(&format!("phones-{transport}"));
    let certificate = authority.sign("server");
    let [pem, key] = certificate.sets();
    let [sip, tls]: [SocketAddr; 2] = [(); 2].map(|()| ([127, 0, 0, 1], free_port()).into());
    let listen = format!("udp:{sip},tcp:{sip},tls:{tls}");
    let server = Server::start_on(sip, &listen, &[&pem, &key]);
    let address = if transport == "tls" { tls } else { sip };
    let uri = format!("sip:lobby@{address};transport={transport}");
    let ca = authority.pem.display();
    let mut baresip = Baresip::start(BARESIP_HZ, &format!("sip_cafile {ca}\n"));
    let mut linphone = Linphone::start(LINPHONE_HZ, &format!("root_ca={ca}\n"));
    baresip.dial(&uri);
    // Of the names in a certificate linphone compares those that are no addresses.
    linphone.dial(&uri.replace("127.0.0.1", "localhost"));
    server.wait_until("both are in the room", |server| server.participants() == 2);

    let both = hear_room(&server);
    assert!(share_of_pitch(&both, BARESIP_HZ) > HEARD, "no baresip");
    assert!(share_of_pitch(&both, LINPHONE_HZ) > HEARD, "no linphone");

    // baresip on hold says nothing.
    baresip.command("hold", "");
    server.wait_until("baresip is on hold", |server| on_hold(server) == 1);
    let alone = hear_room(&server);
    assert!(
        share_of_pitch(&alone, BARESIP_HZ) < UNHEARD,
        "baresip talks"
    );
    assert!(share_of_pitch(&alone, LINPHONE_HZ) > HEARD, "no linphone");
    baresip.command("resume", "");
    server.wait_until("baresip is back", |server| on_hold(server) == 0);
    let again = hear_room(&server);
    assert!(share_of_pitch(&again, BARESIP_HZ) > HEARD, "no baresip");

    // linphone on hold plays its file to the room, as music, and hears nothing.
    linphone.command("pause");
    server.wait_until("linphone is on hold", |server| on_hold(server) == 1);
    linphone.program.wait_until("it knows", |program| {
        program.log().contains("is now paused")
    });
    let before = linphone.heard().len();
    hear_room(&server);
    let held = linphone.heard().len();
    assert!(
        held - before < SECOND / 2,
        "linphone hears what it has on hold"
    );
    linphone.command("resume");
    server.wait_until("linphone is back", |server| on_hold(server) == 0);
    server.wait_until("linphone hears again", |_| {
        linphone.heard().len() > held + 2 * SECOND
    });

    linphone.command("terminate");
    baresip.command("hangup", "");
    server.wait_until("both have left", |server| server.participants() == 0);
    linphone.quit();
    let heard = linphone.heard();
    let end = &heard[heard.len() - SECOND..];
    assert!(
        share_of_pitch(end, BARESIP_HZ) > 0.9,
        "linphone hears no baresip"
    );
    assert!(
        share_of_pitch(end, LINPHONE_HZ) < UNHEARD,
        "linphone hears itself"
    );
    let heard = baresip.heard();
    assert!(
        share_of_pitch(&heard, LINPHONE_HZ) > 0.7,
        "baresip hears no linphone"
    );
    assert!(
        share_of_pitch(&heard, BARESIP_HZ) < UNHEARD,
        "baresip hears itself"
    );
}

#[test]
fn phones_transfer_over_udp() {
    phones_transfer("udp");
}

/// The room makes connections of its own.
#[test]
fn phones_transfer_over_tcp() {
    phones_transfer("tcp");
}

/// A phone's "transfer" asks the room by REFER to call somebody, and hangs up when that one is in.
fn phones_transfer(transport: &str) {
    if !(is_installed("baresip") && is_installed("linphonec")) {
        return;
    }
    let server = Server::start(&[]);
    let is_in = |who: &str| server.get("/api/v1/conferences/lobby").1.contains(who);
    let mut linphone = Linphone::start(LINPHONE_HZ, "");
    linphone.command("autoanswer enable");
    let mut baresip = Baresip::start(BARESIP_HZ, "");
    baresip.dial(&format!("{};transport={transport}", server.uri("lobby")));
    server.wait_until("baresip is in", |_| is_in("sip:baresip@"));

    baresip.command(
        "transfer",
        &format!("{};transport={transport}", linphone.uri()),
    );
    server.wait_until("linphone is in", |_| is_in("sip:linphone@"));
    server.wait_until("baresip has left", |_| !is_in("sip:baresip@"));
    let heard = hear_room(&server);
    assert!(share_of_pitch(&heard, LINPHONE_HZ) > 0.9, "no linphone");

    // And back.
    linphone.command(&format!("transfer {};transport={transport}", baresip.uri()));
    server.wait_until("baresip is in", |_| is_in("sip:baresip@"));
    server.wait_until("linphone has left", |_| !is_in("sip:linphone@"));
    let heard = hear_room(&server);
    assert!(share_of_pitch(&heard, BARESIP_HZ) > 0.9, "no baresip");

    baresip.command("hangup", "");
    server.wait_until("nobody is left", |server| server.participants() == 0);
    linphone.quit();
}

/// What somebody hears who calls over UDP for two seconds, without the first half second.
fn hear_room(server: &Server) -> Vec<i16> {
    let record = scratch(&format!("listener-{}.wav", server.sip.port()));
    let arguments = ["--record", record.to_str().unwrap(), "--seconds", "2"];
    Phone::call(&server.uri("lobby"), &arguments).succeed();
    let samples = read_wav(&record);
    let _ = std::fs::remove_file(record);
    samples[SECOND / 2..].to_vec()
}

fn on_hold(server: &Server) -> usize {
    let (code, body) = server.get("/api/v1/conferences/lobby");
    assert_eq!(code, 200, "{body}");
    let room = common::json(body);
    let participants = room["participants"].as_array().expect("a list");
    participants
        .iter()
        .filter(|participant| participant["status"] == "on-hold")
        .count()
}

/// linphone knows a conference by the `isfocus` of its Contact, subscribes to it, and is told who else is
/// there as long as it is (RFC 4579 §5.2).
#[test]
fn a_phone_sees_who_is_in_the_room() {
    if !(is_installed("baresip") && is_installed("linphonec")) {
        return;
    }
    let server = Server::start(&["rooms.notify_ms=200"]);
    let registrar = Registrar::start();
    // It subscribes for users who are registered somewhere, and by way of their proxy.
    let account = format!(
        "default_proxy=0\n[proxy_0]\nreg_proxy=<sip:{}>\nreg_route=<sip:{};lr>\n\
         reg_identity=sip:linphone@127.0.0.1\nreg_expires=600\nreg_sendregister=1\npublish=0",
        registrar.address, server.sip
    );
    let mut baresip = Baresip::start(BARESIP_HZ, "");
    let mut linphone = Linphone::start(LINPHONE_HZ, &account);
    let has_seen = |linphone: &mut Linphone, what: &str| {
        let program = &mut linphone.program;
        program.wait_until(what, |program| {
            std::fs::read(program.file("trace"))
                .is_ok_and(|trace| String::from_utf8_lossy(&trace).contains(what))
        });
    };
    has_seen(&mut linphone, "to [LinphoneRegistrationOk]");
    linphone.dial(&server.uri("lobby"));
    has_seen(&mut linphone, "from state CreationPending to Created");
    baresip.dial(&server.uri("lobby"));
    has_seen(
        &mut linphone,
        "<user entity=\"sip:baresip@127.0.0.1\" state=\"full\">",
    );
    baresip.command("hangup", "");
    has_seen(
        &mut linphone,
        "<user entity=\"sip:baresip@127.0.0.1\" state=\"deleted\"",
    );
    linphone.command("terminate");
    server.wait_until("the room is empty and nobody subscribes", |server| {
        server.participants() == 0 && server.metric("plenum_sip_subscriptions") == 0.0
    });
    linphone.quit();
}
