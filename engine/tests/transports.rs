//! Calls over every transport and both IP versions, and what a server with certificates does.

#[path = "common/certificates.rs"]
mod certificates;
mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use certificates::{Authority, Certificate};
use common::{PATIENCE, PLENUM, Phone, Server, free_port, has_ipv6, scratch};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

const V4: &str = "127.0.0.1";
const V6: &str = "[::1]";

/// A server with all transports, each on a port of its own, on one loopback address.
struct Ports {
    udp: SocketAddr,
    tcp: SocketAddr,
    tls: SocketAddr,
    ws: SocketAddr,
    wss: SocketAddr,
}

impl Ports {
    fn on(host: &str) -> Self {
        let address = || format!("{host}:{}", free_port()).parse().unwrap();
        Self {
            udp: address(),
            tcp: address(),
            tls: address(),
            ws: address(),
            wss: address(),
        }
    }

    fn listen(&self) -> String {
        let Self {
            udp,
            tcp,
            tls,
            ws,
            wss,
        } = self;
        format!("udp:{udp},tcp:{tcp},tls:{tls},ws:{ws},wss:{wss}")
    }

    fn serve(&self, certificate: &Certificate, sets: &[&str]) -> Server {
        let files = certificate.sets();
        let mut all: Vec<&str> = files.iter().map(String::as_str).collect();
        all.extend(sets);
        Server::start_on(self.udp, &self.listen(), &all)
    }
}

/// What a phone needs to reach a TLS listener.
fn tls_phone(address: SocketAddr, ca: &Path) -> Phone {
    let uri = format!("sip:lobby@{address};transport=tls");
    let ca = ca.to_str().unwrap();
    Phone::call(&uri, &["--ca", ca, "--tone", "440", "--seconds", "1"])
}

#[track_caller]
fn check_refused(phone: Phone, says: &str) {
    let output = phone.finish();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(says), "{says:?} is not in {error:?}");
}

fn call_over_everything(host: &str, rtp: &str, label: &str) {
    let authority = Authority::new(label);
    let certificate = authority.sign("server");
    let ports = Ports::on(host);
    let server = ports.serve(&certificate, &[&format!("rtp.address={rtp}")]);
    let talk = ["--tone", "440", "--seconds", "2"];
    let phones = [
        Phone::call(&server.uri("lobby"), &talk),
        Phone::call(&format!("sip:lobby@{};transport=tcp", ports.tcp), &talk),
        tls_phone(ports.tls, &authority.pem),
    ];
    for phone in phones {
        let summary = phone.succeed();
        assert!(summary.contains("codec=pcmu"), "{summary}");
    }
    server.wait_until("all have left", |server| server.participants() == 0);
}

#[test]
fn calls_over_udp_tcp_and_tls() {
    call_over_everything(V4, "127.0.0.1", "all-v4");
}

#[test]
fn calls_over_udp_tcp_and_tls_on_ipv6() {
    if has_ipv6() {
        call_over_everything(V6, "::1", "all-v6");
    }
}

/// A browser's end of SIP over WebSocket.
struct Browser<S> {
    socket: WebSocket<S>,
    address: SocketAddr,
    /// Its own.
    port: u16,
    secure: bool,
}

trait Duplex: Read + Write {}

impl<S: Read + Write> Duplex for S {}

type Refusal = tungstenite::Error;

impl Browser<Box<dyn Duplex>> {
    fn connect(
        address: SocketAddr,
        ca: Option<&Path>,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<Refusal>> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = stream.local_addr().unwrap().port();
        let stream: Box<dyn Duplex> = match ca {
            None => Box::new(stream),
            Some(ca) => Box::new(secure(stream, &client(ca, None))),
        };
        // The library leaves TLS to us.
        let mut request = format!("ws://{address}/").into_client_request().unwrap();
        for &(name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            request.headers_mut().insert(name, value);
        }
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => {
                let protocol = response.headers().get("Sec-WebSocket-Protocol");
                assert_eq!(protocol.unwrap(), "sip");
                Ok(Self {
                    socket,
                    address,
                    port,
                    secure: ca.is_some(),
                })
            }
            Err(tungstenite::HandshakeError::Failure(error)) => Err(Box::new(error)),
            Err(other) => panic!("{other}"),
        }
    }

    fn open(address: SocketAddr, ca: Option<&Path>) -> Self {
        Self::connect(address, ca, &[SIP]).unwrap()
    }

    /// A request without Content-Length: the WebSocket says where it ends (RFC 7118 §5).
    fn request(&self, method: &str, sequence: u32, to: &str, body: &str) -> String {
        let transport = if self.secure { "WSS" } else { "WS" };
        // Ours alone: branches and Call-IDs of other browsers must be others.
        let port = self.port;
        let uri = format!("sip:lobby@{};transport=ws", self.address);
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} browser.invalid;branch=z9hG4bK{port}{method}{sequence}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:web@browser.invalid>;tag=web\r\nTo: {to}\r\n\
             Call-ID: {port}\r\nCSeq: {sequence} {method}\r\n\
             Contact: <sip:web@browser.invalid;transport=ws>\r\n{kind}\r\n{body}"
        )
    }

    fn say(&mut self, text: impl Into<Message>) {
        self.socket.send(text.into()).unwrap();
    }

    /// The next message of SIP.
    fn hear(&mut self) -> String {
        loop {
            match self.socket.read().expect("a message") {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Binary(bytes) => return String::from_utf8(bytes.to_vec()).unwrap(),
                _ => {}
            }
        }
    }

    /// The final answer.
    fn answer(&mut self) -> String {
        loop {
            let message = self.hear();
            if !message.starts_with("SIP/2.0 1") {
                return message;
            }
        }
    }
}

const SIP: (&str, &str) = ("Sec-WebSocket-Protocol", "sip");

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";

/// Trusts the authority in `ca`, and shows `own` if asked for it.
fn client(ca: &Path, own: Option<&Certificate>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&own.pem).unwrap()],
                PrivateKeyDer::from_pem_file(&own.key).unwrap(),
            )
            .unwrap(),
    })
}

fn secure(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(config.clone(), name).unwrap();
    StreamOwned::new(connection, stream)
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ");
    message
        .lines()
        .find_map(line)
        .unwrap_or_else(|| panic!("no {name} in\n{message}"))
}

fn call_from_browser(server: &Server, address: SocketAddr, ca: Option<&Path>) {
    let mut browser = Browser::open(address, ca);
    let room = format!("<sip:lobby@{address}>");
    browser.say(browser.request("INVITE", 1, &room, SDP));
    let answer = browser.answer();
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    assert!(answer.contains("m=audio"), "{answer}");
    let to = header(&answer, "To").to_owned();
    browser.say(browser.request("ACK", 1, &to, ""));
    server.wait_until("the browser is in", |server| server.participants() == 1);
    browser.say(browser.request("BYE", 2, &to, ""));
    assert!(browser.answer().starts_with("SIP/2.0 200"));
    server.wait_until("the browser has left", |server| server.participants() == 0);
}

#[test]
fn browsers_call_by_websocket() {
    let authority = Authority::new("browsers");
    let certificate = authority.sign("server");
    let ports = Ports::on(V4);
    let server = ports.serve(&certificate, &[]);
    call_from_browser(&server, ports.ws, None);
    call_from_browser(&server, ports.wss, Some(&authority.pem));
    drop(server);
    if !has_ipv6() {
        return;
    }
    let ports = Ports::on(V6);
    let server = ports.serve(&certificate, &[]);
    call_from_browser(&server, ports.ws, None);
    call_from_browser(&server, ports.wss, Some(&authority.pem));
}

#[test]
fn a_call_ends_with_the_connection_of_its_browser() {
    let authority = Authority::new("leaving");
    let certificate = authority.sign("server");
    let ports = Ports::on(V4);
    let server = ports.serve(&certificate, &[]);
    let mut browser = Browser::open(ports.ws, None);
    let room = format!("<sip:lobby@{}>", ports.ws);
    browser.say(browser.request("INVITE", 1, &room, SDP));
    let to = header(&browser.answer(), "To").to_owned();
    browser.say(browser.request("ACK", 1, &to, ""));
    server.wait_until("the browser is in", |server| server.participants() == 1);
    drop(browser);
    server.wait_until("the browser has left", |server| server.participants() == 0);
}

#[test]
fn a_websocket_carries_sip_for_wanted_pages_only() {
    let authority = Authority::new("pages");
    let certificate = authority.sign("server");
    let ports = Ports::on(V4);
    let origins = "sip.origins=https://a.example,https://b.example:8443";
    let _server = ports.serve(&certificate, &[origins]);
    let status = |headers: &[(&'static str, &str)]| match Browser::connect(ports.ws, None, headers)
        .err()
        .map(|error| *error)
    {
        None => 101,
        Some(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Some(other) => panic!("{other}"),
    };
    assert_eq!(status(&[SIP]), 101);
    assert_eq!(status(&[("Sec-WebSocket-Protocol", "chat, sip")]), 101);
    assert_eq!(status(&[]), 400);
    assert_eq!(status(&[("Sec-WebSocket-Protocol", "chat, sipx")]), 400);
    assert_eq!(status(&[SIP, ("Origin", "https://b.example:8443")]), 101);
    assert_eq!(status(&[SIP, ("Origin", "https://b.example")]), 403);
    assert_eq!(
        status(&[SIP, ("Origin", "https://a.example.evil.test")]),
        403
    );
    assert_eq!(status(&[SIP, ("Origin", "null")]), 403);

    // No WebSocket at all.
    for request in ["GET / HTTP/1.1\r\n\r\n", "OPTIONS sip:a SIP/2.0\r\n\r\n"] {
        let mut stream = TcpStream::connect(ports.ws).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 101"));
    }
}

#[test]
fn websocket_messages_may_be_in_pieces_or_bytes_and_no_larger_than_sip() {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    let authority = Authority::new("pieces");
    let certificate = authority.sign("server");
    let ports = Ports::on(V4);
    let server = ports.serve(&certificate, &[]);
    let mut browser = Browser::open(ports.ws, None);
    let room = format!("<sip:lobby@{}>", ports.ws);
    let options = browser.request("OPTIONS", 1, &room, "");
    let (first, rest) = options.split_at(50);
    let pieces = [
        (first, OpCode::Data(Data::Text), false),
        (rest, OpCode::Data(Data::Continue), true),
    ];
    for (piece, code, last) in pieces {
        let frame = Frame::message(piece.as_bytes().to_vec(), code, last);
        browser.say(Message::Frame(frame));
        // A ping between the pieces.
        browser.say(Message::Ping(b"still there?".to_vec().into()));
    }
    assert!(browser.answer().starts_with("SIP/2.0 200"));
    let options = browser.request("OPTIONS", 2, &room, "");
    browser.say(options.into_bytes());
    assert!(browser.answer().starts_with("SIP/2.0 200"));

    browser.say(Message::Ping(b"alone".to_vec().into()));
    match browser.socket.read().unwrap() {
        Message::Pong(bytes) => assert_eq!(bytes, &b"alone"[..]),
        other => panic!("{other:?}"),
    }
    // Keep-alive (RFC 5626 §4.4.1), and line ends that are none.
    browser.say("\r\n");
    browser.say("\r\n\r\n");
    assert_eq!(browser.hear(), "\r\n");

    let long = browser.request("OPTIONS", 3, &room, &"x".repeat(200_000));
    // The server may be gone before we have written all of it.
    let _ = browser.socket.send(long.into());
    while let Ok(message) = browser.socket.read() {
        assert!(message.is_close(), "{message:?}");
    }
    call_from_browser(&server, ports.ws, None);
}

/// The certificate that a TLS listener shows.
fn shown(address: SocketAddr, ca: &Path) -> Result<CertificateDer<'static>, String> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = secure(stream, &client(ca, None));
    stream.flush().map_err(|error| error.to_string())?;
    let shown = stream.conn.peer_certificates().expect("a certificate");
    Ok(shown[0].clone().into_owned())
}

#[test]
fn sighup_changes_the_certificate_for_new_connections() {
    let old = Authority::new("old");
    let new = Authority::new("new");
    let certificate = old.sign("server");
    let ports = Ports::on(V4);
    let server = ports.serve(&certificate, &[]);
    let before = shown(ports.tls, &old.pem).unwrap();
    let uri = format!("sip:lobby@{};transport=tls", ports.tls);
    let ca = old.pem.to_str().unwrap();
    let during = Phone::call(&uri, &["--ca", ca, "--tone", "440"]);
    server.wait_until("a call is up", |server| server.participants() == 1);

    // Half a key: the old pair stays.
    std::fs::write(&certificate.key, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    server.signal("HUP");
    server.wait_until("it says so", |server| server.log().contains("sip.tls.key"));
    assert_eq!(shown(ports.tls, &old.pem).unwrap(), before);

    new.sign_into(&certificate);
    server.signal("HUP");
    server.wait_until("the new one is shown", |_| {
        shown(ports.tls, &new.pem).is_ok()
    });
    assert!(shown(ports.tls, &old.pem).is_err());
    tls_phone(ports.tls, &new.pem).succeed();
    ask_from_browser(&server, ports.wss, &new.pem);
    // The call of before goes on over its connection, to a BYE.
    server.signal("INT");
    during.succeed();
}

/// OPTIONS and its answer, which leave the rooms as they are.
fn ask_from_browser(server: &Server, address: SocketAddr, ca: &Path) {
    let mut browser = Browser::open(address, Some(ca));
    let room = format!("<sip:lobby@{address}>");
    browser.say(browser.request("OPTIONS", 1, &room, ""));
    assert!(
        browser.answer().starts_with("SIP/2.0 200"),
        "{}",
        server.log()
    );
}

#[test]
fn callers_without_a_certificate_are_refused_where_one_is_required() {
    let authority = Authority::new("mutual");
    let certificate = authority.sign("server");
    let caller = authority.sign("caller");
    let stranger = Authority::new("stranger").sign("caller");
    let ports = Ports::on(V4);
    let ca = format!("sip.tls.client_ca={}", authority.pem.display());
    let server = ports.serve(&certificate, &[&ca]);

    check_refused(tls_phone(ports.tls, &authority.pem), "network");
    let options = |own: Option<&Certificate>| {
        let stream = TcpStream::connect(ports.tls).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = secure(stream, &client(&authority.pem, own));
        let options = format!(
            "OPTIONS sip:lobby@{0} SIP/2.0\r\nVia: SIP/2.0/TLS h.test;branch=z9hG4bKo\r\nMax-Forwards: 70\r\n\
             From: <sip:a@h.test>;tag=a\r\nTo: <sip:lobby@{0}>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
            ports.tls
        );
        stream.write_all(options.as_bytes())?;
        let mut answer = [0; 11];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(String::from_utf8(answer.to_vec()).unwrap())
    };
    assert_eq!(options(Some(&caller)).unwrap(), "SIP/2.0 200");
    for own in [None, Some(&stranger)] {
        let error = options(own).unwrap_err();
        // Refused, not merely left without an answer.
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "{error}");
    }
    assert_eq!(server.participants(), 0);
}

#[test]
fn a_phone_trusts_no_certificate_of_a_stranger() {
    let authority = Authority::new("trusted");
    let other = Authority::new("other");
    let certificate = authority.sign("server");
    let ports = Ports::on(V4);
    let server = ports.serve(&certificate, &[]);
    check_refused(tls_phone(ports.tls, &other.pem), "certificate");
    assert_eq!(server.participants(), 0);
    tls_phone(ports.tls, &authority.pem).succeed();
}

#[test]
fn a_tls_listener_survives_garbage_and_half_handshakes() {
    let authority = Authority::new("garbage");
    let certificate = authority.sign("server");
    let ports = Ports::on(V4);
    let mut server = ports.serve(&certificate, &[]);

    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(client(&authority.pem, None), name).unwrap();
    connection.write_tls(&mut hello).unwrap();

    let mut open = Vec::new();
    for address in [ports.tls, ports.wss] {
        let half = &hello[..hello.len() / 2];
        let noise: Vec<u8> = (0..5_000).map(|i| (i * 31) as u8).collect();
        for bytes in [
            &b"OPTIONS sip:a SIP/2.0\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            &noise,
            // A record that promises more than TLS allows.
            b"\x16\x03\x01\xff\xff\x01\x00\xff\xff",
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let _ = stream.write_all(bytes);
            // An alert, perhaps, and the end.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        for bytes in [&b""[..], half, &hello, &[&hello[..], &noise].concat()] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(bytes).unwrap();
            open.push(stream);
        }
    }
    tls_phone(ports.tls, &authority.pem).succeed();
    call_from_browser(&server, ports.wss, Some(&authority.pem));
    drop(open);
    tls_phone(ports.tls, &authority.pem).succeed();
    assert!(server.lives());
}

#[track_caller]
fn check_configuration(sets: &[String], says: &[&str]) {
    let mut command = Command::new(PLENUM);
    command.arg("check");
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    for word in says {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn certificates_that_cannot_be_used_are_found_before_the_start() {
    let authority = Authority::new("check");
    let certificate = authority.sign("server");
    let other = authority.sign("other");
    let listen = "sip.listen=tls:127.0.0.1:5061".to_owned();
    let [chain, key] = certificate.sets();
    let [_, other_key] = other.sets();
    check_configuration(
        &[listen.clone(), chain.clone(), other_key],
        &["sip.tls.key", "other-key.pem"],
    );
    let nowhere = "sip.tls.key=/nowhere/key.pem".to_owned();
    check_configuration(
        &[listen.clone(), chain.clone(), nowhere],
        &["sip.tls.key", "/nowhere/key.pem"],
    );
    let empty = scratch("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let empty_chain = format!("sip.tls.certificate={}", empty.display());
    check_configuration(
        &[listen.clone(), empty_chain, key.clone()],
        &["sip.tls.certificate", "empty.pem", "no certificate"],
    );
    for ca in ["sip.tls.client_ca", "sip.tls.ca"] {
        let set = format!("{ca}={}", empty.display());
        check_configuration(
            &[listen.clone(), chain.clone(), key.clone(), set],
            &[ca, "empty.pem"],
        );
    }
    std::fs::remove_file(&empty).unwrap();
}

/// A room of one server calls a room of another over a connection of its own, and believes the other's
/// certificate because of who signed it.
#[test]
fn servers_call_each_other_over_tcp_and_tls() {
    let authority = Authority::new("callee");
    let certificate = authority.sign("callee");
    let ports = Ports::on(V4);
    let callee = ports.serve(&certificate, &[]);
    for (transport, address) in [("tcp", ports.tcp), ("tls", ports.tls)] {
        let own = Ports::on(V4);
        let trust = format!("sip.tls.ca={}", authority.pem.display());
        let [pem, key] = certificate.sets();
        let mut caller = callee.start_beside_on(own.udp, &own.listen(), &[&pem, &key, &trust]);
        let target = format!("sip:lobby@{address};transport={transport}");
        let path = "/api/v1/conferences/annex/participants";
        let (code, body) = caller.post(path, &format!("{{\"uri\":\"{target}\"}}"));
        assert_eq!(code, 202, "{body}");
        callee.wait_until("the call is up", |callee| {
            callee.participants() == 1 && caller.participants() == 1
        });
        // Somebody in each room is heard in the other.
        let phones = [(&caller, "annex"), (&callee, "lobby")].map(|(server, room)| {
            Phone::call(&server.uri(room), &["--tone", "440", "--seconds", "1"])
        });
        phones.into_iter().for_each(|phone| drop(phone.succeed()));
        caller.signal("INT");
        assert!(caller.wait_for_end().success());
        callee.wait_until("nobody is left", |callee| callee.participants() == 0);
    }
}
