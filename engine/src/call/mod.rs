//! `plenum call`: a headless SIP phone on the same protocol crates as the server.
//!
//! One thread, ordinary sockets, a turn each millisecond: SIP in and out, then, while the call is up,
//! a frame each 20 ms in both directions. Redirects are followed.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sip::digest::Credentials;
use sip::sdp::{self, Agreed};
use sip::{Body, CallKey, Endpoint, Event, Invitation, ListenerIdentity, Output};

use crate::codec::Codec;
use crate::focus::negotiate;
use crate::random::Random;

mod audio;
mod media;
mod target;
mod wire;

pub use audio::{Source, WavError};
pub use media::MediaSummary;
pub use target::{Target, TargetError};

use media::Media;
use wire::Wire;

/// Hops after which a chain of redirects is taken for a loop.
const REDIRECTS_MAX: usize = 5;

/// How long a BYE may take to be answered before we go anyway.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(2);

const TURN: Duration = Duration::from_millis(1);

/// What to call, and what to say and keep.
pub struct Options {
    pub target: Target,
    /// PEM file of the authorities trusted with TLS; None = those the system trusts.
    pub ca: Option<PathBuf>,
    /// For a server that asks who calls.
    pub credentials: Option<Credentials>,
    pub codec: Codec,
    pub source: Source,
    pub record: Option<PathBuf>,
    /// None: until the file to send has ended, the other side hangs up, or `interrupted`.
    pub duration: Option<Duration>,
    /// Set from outside to hang up now.
    pub interrupted: Arc<AtomicBool>,
}

/// Why there was no call.
#[derive(Debug)]
pub enum CallError {
    Network(io::Error),
    Wav(WavError),
    /// The final status that refused the call.
    Rejected {
        status: u16,
    },
    TooManyRedirects,
    BadRedirect(TargetError),
    NoAnswer,
    BadAnswer(String),
    /// The call was up, but nothing was heard (or could be said).
    NoMedia,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(error) => write!(f, "network: {error}"),
            Self::Wav(error) => error.fmt(f),
            Self::Rejected { status } => write!(f, "the call was refused with {status}"),
            Self::TooManyRedirects => write!(
                f,
                "redirected more than {REDIRECTS_MAX} times or in a circle"
            ),
            Self::BadRedirect(error) => write!(f, "redirected to where no call can go: {error}"),
            Self::NoAnswer => write!(f, "no answer"),
            Self::BadAnswer(reason) => write!(f, "the answer cannot be used: {reason}"),
            Self::NoMedia => write!(f, "the call was up, but media did not flow both ways"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Network(error)
    }
}

/// What the call came to.
#[derive(Debug)]
pub struct Summary {
    pub target: Target,
    pub redirects: usize,
    /// From INVITE to 200.
    pub setup: Duration,
    pub talked: Duration,
    pub media: MediaSummary,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            redirects,
            setup,
            talked,
            media,
        } = self;
        write!(
            f,
            "{target} codec={} seconds={:.1} setup_ms={:.1} redirects={redirects} {media}",
            media.codec.name().to_ascii_lowercase(),
            talked.as_secs_f64(),
            setup.as_secs_f64() * 1e3,
        )
    }
}

/// Calls, talks, hangs up.
///
/// # Errors
/// There was no call, or nothing was heard in it.
pub fn call(options: Options) -> Result<Summary, CallError> {
    let Options {
        mut target,
        ca,
        credentials,
        codec,
        mut source,
        record,
        duration,
        interrupted,
    } = options;
    let mut random = Random::from_entropy();
    let mut visited = HashSet::new();
    for redirects in 0..=REDIRECTS_MAX {
        if !visited.insert(target.to_string()) {
            break;
        }
        let record = record.as_deref();
        let phone = Phone::dial(
            target.clone(),
            ca.as_deref(),
            credentials.clone(),
            codec,
            random.next_u64(),
        )?;
        match phone.run(&mut source, record, duration, &interrupted)? {
            Outcome::Talked {
                setup,
                talked,
                media,
            } if media.flowed_both_ways() => {
                return Ok(Summary {
                    target,
                    redirects,
                    setup,
                    talked,
                    media,
                });
            }
            Outcome::Talked { .. } => return Err(CallError::NoMedia),
            Outcome::Redirected(contact) => {
                target = contact.parse().map_err(CallError::BadRedirect)?
            }
        }
    }
    Err(CallError::TooManyRedirects)
}

enum Outcome {
    Talked {
        setup: Duration,
        talked: Duration,
        media: MediaSummary,
    },
    Redirected(String),
}

/// One attempt at one address.
struct Phone {
    wire: Wire,
    endpoint: Endpoint,
    call: CallKey,
    codec: Codec,
    media: Media,
    offer: sdp::SessionDescription,
    seed: u64,
    dialled: Instant,
    answered: Option<Instant>,
}

impl Phone {
    fn dial(
        target: Target,
        ca: Option<&Path>,
        credentials: Option<Credentials>,
        codec: Codec,
        seed: u64,
    ) -> Result<Self, CallError> {
        let wire = Wire::connect(&target, ca)?;
        let local = wire.local_address()?;
        let media = Media::bind(local.ip())?;
        let identity = ListenerIdentity {
            transport: target.transport(),
            sent_by: local.to_string(),
        };
        let config = sip::Config::new(0, vec![identity], seed);
        let mut endpoint = Endpoint::new(config);

        // Only what was asked for: the far end decides among what it is offered.
        let capabilities = negotiate::capabilities(&[codec]);
        let offer = sdp::offer(&capabilities, &media.local(local.ip(), seed));
        let now = Instant::now();
        let invitation = Invitation {
            target: target.to_string(),
            from: format!("sip:caller@{local}"),
            contact_user: "caller".to_owned(),
            body: Some(Body {
                content_type: "application/sdp".to_owned(),
                content: Bytes::from(offer.to_string()),
            }),
            credentials,
            ..Invitation::default()
        };
        let call = endpoint
            .invite(now, wire.flow(), invitation)
            .map_err(|error| CallError::Network(io::Error::other(error)))?;
        Ok(Self {
            wire,
            endpoint,
            call,
            codec,
            media,
            offer,
            seed,
            dialled: now,
            answered: None,
        })
    }

    fn run(
        mut self,
        source: &mut Source,
        record: Option<&Path>,
        duration: Option<Duration>,
        interrupted: &AtomicBool,
    ) -> Result<Outcome, CallError> {
        let mut hung_up: Option<Instant> = None;
        let mut ended = false;
        loop {
            let now = Instant::now();
            self.wire
                .receive(|flow, message| self.endpoint.handle_message(now, flow, message))?;
            self.endpoint.handle_timeout(now);
            while let Some(output) = self.endpoint.poll_output() {
                match output {
                    Output::Transmit { message, .. } => self.wire.send(&message)?,
                    Output::Event(Event::Accepted { body, .. }) => {
                        self.answered = Some(now);
                        let agreed = self.agreed(body.as_ref())?;
                        self.media
                            .start(now, &agreed, self.codec, self.seed, record)?;
                    }
                    Output::Event(Event::Redirected { contacts, .. }) => {
                        let first = contacts.into_iter().next().ok_or(CallError::NoAnswer)?;
                        self.settle()?;
                        return Ok(Outcome::Redirected(first));
                    }
                    Output::Event(Event::Rejected { status, .. }) => {
                        self.settle()?;
                        return Err(CallError::Rejected { status });
                    }
                    Output::Event(Event::Reinvite { call, .. }) => {
                        // Terms never change on this phone; what was agreed goes on.
                        self.endpoint.reject(now, call, sip::Rejection::new(488));
                    }
                    Output::Event(Event::Ended { .. }) => {
                        ended = true;
                        self.media.stop(now);
                    }
                    Output::Event(_) => {}
                }
            }
            self.media.turn(now, SystemTime::now(), source)?;

            let talked = self.answered.map(|answered| now - answered);
            if (ended && self.endpoint.is_idle())
                || hung_up.is_some_and(|at| now >= at + HANG_UP_TIMEOUT)
            {
                let (Some(answered), Some(talked)) = (self.answered, talked) else {
                    return Err(CallError::NoAnswer);
                };
                let media = self.media.finish()?;
                return Ok(Outcome::Talked {
                    setup: answered - self.dialled,
                    talked,
                    media,
                });
            }
            let enough = match (talked, duration) {
                (Some(talked), Some(duration)) => talked >= duration,
                (Some(_), None) => source.has_ended(),
                (None, _) => false,
            };
            if hung_up.is_none() && (enough || interrupted.load(Ordering::Relaxed)) {
                hung_up = Some(now);
                self.media.stop(now);
                if self.answered.is_some() {
                    self.endpoint.bye(now, self.call, None);
                } else {
                    self.endpoint.cancel(now, self.call);
                }
            }
            std::thread::sleep(TURN);
        }
    }

    fn agreed(&self, body: Option<&Body>) -> Result<Agreed, CallError> {
        let body =
            body.ok_or_else(|| CallError::BadAnswer("it has no session description".to_owned()))?;
        let answer =
            sdp::parse(&body.content).map_err(|error| CallError::BadAnswer(error.to_string()))?;
        let capabilities = negotiate::capabilities(&[self.codec]);
        let agreed = sdp::accept_answer(&self.offer, &answer, &capabilities)
            .map_err(|error| CallError::BadAnswer(error.to_string()))?;
        if agreed.is_somewhere() {
            let reason = "its media are at an address of the other family".to_owned();
            return Err(CallError::BadAnswer(reason));
        }
        Ok(agreed)
    }

    /// Sends what is still to be said (the ACK of a refusal).
    fn settle(&mut self) -> Result<(), CallError> {
        while let Some(output) = self.endpoint.poll_output() {
            if let Output::Transmit { message, .. } = output {
                self.wire.send(&message)?;
            }
        }
        Ok(())
    }
}
