//! Connections between two shards' worth of [`Streams`] on one executor.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::PathBuf;
use std::time::Instant;

use glommio::LocalExecutorBuilder;
use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;
use crate::config::{CertificateFiles, TlsConfig};

const PATIENCE: Duration = Duration::from_secs(20);

const OPTIONS: &[u8] =
    b"OPTIONS sip:a@localhost SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n";
const ANSWER: &[u8] = b"SIP/2.0 200 OK\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n";

fn on_an_executor(test: impl Future<Output = ()>) {
    let executor = LocalExecutorBuilder::default().io_memory(64 << 10).make();
    executor.expect("io_uring").run(test);
}

fn no_tls() -> Arc<Tls> {
    Arc::new(Tls::load(&TlsConfig::default()).unwrap())
}

fn streams(first: u64, tls: &Arc<Tls>) -> Streams {
    Streams::new(first, Settings::new(tls.clone(), Vec::new()))
}

/// Accepts connections for `streams`; gives what to connect to.
fn listen(streams: &Streams, transport: Transport) -> Flow {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = listener.local_addr().unwrap();
    glommio::spawn_local(streams.clone().accept(listener, transport, 0)).detach();
    Flow {
        transport,
        peer,
        listener: 3,
        stream: 0,
    }
}

/// The next event, which must come.
async fn next(streams: &Streams) -> StreamEvent {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut events = Vec::new();
        streams.take(&mut events);
        if !events.is_empty() {
            let event = events.remove(0);
            streams.shared.borrow_mut().inbox.splice(0..0, events);
            return event;
        }
        glommio::timer::sleep(Duration::from_millis(1)).await;
    }
    panic!("nothing happened");
}

#[track_caller]
fn message(event: StreamEvent) -> (Flow, Bytes) {
    match event {
        StreamEvent::Message { flow, message } => (flow, message),
        other => panic!("no message but {other:?}"),
    }
}

#[track_caller]
fn failed(event: StreamEvent) -> Flow {
    match event {
        StreamEvent::Failed { flow } => flow,
        other => panic!("no failure but {other:?}"),
    }
}

fn say(streams: &Streams, flow: Flow, message: &'static [u8]) {
    streams.send(flow, Bytes::from_static(message));
}

#[test]
fn a_flow_without_a_number_is_connected_once_and_used_both_ways() {
    on_an_executor(async {
        let tls = no_tls();
        let (here, there) = (streams(1, &tls), streams(1 << 48, &tls));
        let peer = listen(&there, Transport::Tcp);
        say(&here, peer, OPTIONS);
        say(&here, peer, OPTIONS);
        let (caller, first) = message(next(&there).await);
        assert_eq!(first, OPTIONS);
        assert_eq!(message(next(&there).await).0, caller);
        assert_eq!((here.len(), there.len()), (1, 1));

        say(&there, caller, ANSWER);
        let (flow, answer) = message(next(&here).await);
        assert_eq!(answer, ANSWER);
        assert_eq!(flow, Flow { stream: 1, ..peer });

        // What is sent to a caller by address alone finds the connection that it made.
        say(
            &there,
            Flow {
                stream: 0,
                ..caller
            },
            OPTIONS,
        );
        assert_eq!(message(next(&here).await).0, flow);
        assert_eq!((here.len(), there.len()), (1, 1));
    });
}

#[test]
fn what_cannot_be_sent_is_told_as_it_was_asked() {
    on_an_executor(async {
        let here = streams(1, &no_tls());
        let peer = {
            let free = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            free.local_addr().unwrap()
        };
        let nobody = Flow {
            transport: Transport::Tcp,
            peer,
            listener: 2,
            stream: 0,
        };
        say(&here, nobody, OPTIONS);
        assert!(matches!(next(&here).await, StreamEvent::Closed { .. }));
        assert_eq!(failed(next(&here).await), nobody);
        let gone = Flow {
            stream: 77,
            ..nobody
        };
        say(&here, gone, OPTIONS);
        assert_eq!(failed(next(&here).await), gone);
        for transport in [Transport::Ws, Transport::Wss] {
            let browser = Flow {
                transport,
                ..nobody
            };
            say(&here, browser, OPTIONS);
            assert_eq!(failed(next(&here).await), browser);
        }
        assert!(here.is_empty());
    });
}

#[test]
fn a_connection_that_breaks_fails_those_who_asked_for_it() {
    on_an_executor(async {
        let tls = no_tls();
        let (here, there) = (streams(1, &tls), streams(1 << 48, &tls));
        let peer = listen(&there, Transport::Tcp);
        let other = Flow {
            listener: 4,
            ..peer
        };
        for flow in [peer, other, peer] {
            say(&here, flow, OPTIONS);
        }
        let (caller, _) = message(next(&there).await);
        there.shared.borrow_mut().remove(caller.stream);
        match next(&here).await {
            StreamEvent::Closed { flow } => assert_eq!(flow, Flow { stream: 1, ..peer }),
            other => panic!("{other:?}"),
        }
        assert_eq!(failed(next(&here).await), peer);
        assert_eq!(failed(next(&here).await), other);
        assert!(here.is_empty());
    });
}

#[test]
fn connections_beyond_the_limit_are_not_made_and_not_kept() {
    on_an_executor(async {
        let tls = no_tls();
        let settings = Settings {
            streams_max: 1,
            ..Settings::new(tls.clone(), Vec::new())
        };
        let (here, there) = (streams(1, &tls), Streams::new(1 << 48, settings));
        let peer = listen(&there, Transport::Tcp);
        say(&here, peer, OPTIONS);
        let (caller, _) = message(next(&there).await);

        let second = streams(1 << 49, &tls);
        say(&second, peer, OPTIONS);
        assert!(matches!(next(&second).await, StreamEvent::Closed { .. }));
        assert_eq!(failed(next(&second).await), peer);
        assert_eq!(there.len(), 1);

        let elsewhere = listen(&second, Transport::Tcp);
        say(&there, elsewhere, OPTIONS);
        assert_eq!(failed(next(&there).await), elsewhere);
        // The first one did not suffer.
        say(&there, caller, ANSWER);
        assert_eq!(message(next(&here).await).1, ANSWER);
    });
}

/// A peer who takes nothing in.
#[test]
fn messages_wait_within_bounds() {
    on_an_executor(async {
        let here = streams(1, &no_tls());
        let deaf = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = Flow {
            transport: Transport::Tcp,
            peer: deaf.local_addr().unwrap(),
            listener: 0,
            stream: 0,
        };
        // Not yet connected: all of them wait.
        for _ in 0..UNSENT_MAX {
            say(&here, peer, OPTIONS);
        }
        assert_eq!(here.len(), 1);
        say(&here, peer, OPTIONS);
        assert_eq!(here.len(), 0);
        assert!(matches!(next(&here).await, StreamEvent::Closed { .. }));
        assert_eq!(failed(next(&here).await), peer);
    });
}

/// A certificate of its own authority for `name`, as files.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(name: &str, label: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.to_owned()]).unwrap();
        let path = |kind: &str| {
            let process = std::process::id();
            std::env::temp_dir().join(format!("plenum-streams-{process}-{label}-{kind}.pem"))
        };
        let files = Self {
            certificate: path("certificate"),
            key: path("key"),
        };
        std::fs::write(&files.certificate, cert.pem()).unwrap();
        std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
        files
    }

    fn own(&self) -> Option<CertificateFiles> {
        Some(CertificateFiles {
            chain: self.certificate.clone(),
            key: self.key.clone(),
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.certificate);
        let _ = std::fs::remove_file(&self.key);
    }
}

fn load(config: TlsConfig) -> Arc<Tls> {
    Arc::new(Tls::load(&config).unwrap())
}

#[test]
fn a_certificate_must_be_for_the_host_that_is_addressed() {
    let files = Files::new("localhost", "name");
    on_an_executor(async {
        let server = load(TlsConfig {
            certificate: files.own(),
            ..TlsConfig::default()
        });
        let trusting = load(TlsConfig {
            ca: Some(files.certificate.clone()),
            ..TlsConfig::default()
        });
        let there = streams(1 << 48, &server);
        let peer = listen(&there, Transport::Tls);

        let here = streams(1, &trusting);
        say(&here, peer, OPTIONS);
        let (caller, first) = message(next(&there).await);
        assert_eq!(first, OPTIONS);
        say(&there, caller, ANSWER);
        assert_eq!(message(next(&here).await).1, ANSWER);

        let wrong_host = b"OPTIONS sip:a@elsewhere.test SIP/2.0\r\nCall-ID: 1\r\n\r\n";
        let careless = streams(1, &no_tls());
        let misled = streams(1, &trusting);
        for (streams, message) in [(&misled, &wrong_host[..]), (&careless, OPTIONS)] {
            streams.send(peer, Bytes::copy_from_slice(message));
            assert!(matches!(next(streams).await, StreamEvent::Closed { .. }));
            assert_eq!(failed(next(streams).await), peer);
        }
    });
}

/// Who has shown no certificate may have taken the address of somebody else.
#[test]
fn only_callers_with_a_certificate_are_called_over_their_own_connection() {
    let files = Files::new("localhost", "reuse");
    on_an_executor(async {
        for known in [false, true] {
            let tls = load(TlsConfig {
                certificate: files.own(),
                client_ca: known.then(|| files.certificate.clone()),
                ca: Some(files.certificate.clone()),
            });
            let (here, there) = (streams(1, &tls), streams(1 << 48, &tls));
            let peer = listen(&there, Transport::Tls);
            say(&here, peer, OPTIONS);
            let (caller, _) = message(next(&there).await);
            say(
                &there,
                Flow {
                    stream: 0,
                    ..caller
                },
                OPTIONS,
            );
            assert_eq!(there.len(), if known { 1 } else { 2 });
            if known {
                assert_eq!(message(next(&here).await).1, OPTIONS);
            }
        }
    });
}
