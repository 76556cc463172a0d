//! A user agent with any number of calls.
//!
//! `handle_*` takes in, `poll_*` gives out; after any call, drain [`Endpoint::poll_output`] until it is
//! None. Messages pass through their transaction first ([`incoming`], [`answers`]); what is news
//! reaches a call ([`call`]); [`outgoing`] holds what the user of the endpoint may do.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;

use crate::message::build::Template;
use crate::transaction::invite_client::InviteClient;
use crate::transaction::invite_server::InviteServer;
use crate::transaction::key::Key;
use crate::transaction::{Acts, Timer, Timers, client, server};
use crate::{Body, Flow, Transport};

mod answers;
mod call;
mod incoming;
mod outgoing;

use call::{Call, DialogKey};
pub use outgoing::TooManyCalls;

/// Transactions whose memory is kept while nothing happens: about a megabyte.
const CAPACITY_AT_REST: usize = 1_024;

/// What the endpoint is and how much it takes on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Written into every tag and branch of ours, so that [`crate::scan()`] finds this endpoint again.
    pub owner: u16,
    /// One per listening address; a [`Flow`] names them by index.
    pub listeners: Vec<ListenerIdentity>,
    pub timers: Timers,
    /// For User-Agent and Server.
    pub user_agent: String,
    /// Tags, branches and Call-IDs come from it.
    pub seed: u64,
    /// Calls beyond this are refused with 503.
    pub calls_max: usize,
    /// Contacts carry `isfocus` (RFC 4579 §5.1): who answers here is a conference.
    pub focus: bool,
}

impl Config {
    pub fn new(owner: u16, listeners: Vec<ListenerIdentity>, seed: u64) -> Self {
        Self {
            owner,
            listeners,
            timers: Timers::default(),
            user_agent: concat!("plenum/", env!("CARGO_PKG_VERSION")).to_owned(),
            seed,
            calls_max: 100_000,
            focus: false,
        }
    }
}

/// How others reach a listening address.
#[derive(Clone, Debug)]
pub struct ListenerIdentity {
    pub transport: Transport,
    /// Host and port for Via and Contact.
    pub sent_by: String,
}

/// Names a call for as long as it lives; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKey {
    slot: u32,
    generation: u32,
}

/// Names a request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey(SlotKey);

/// A transaction's place, with a number that a later transaction in the same place does not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct SlotKey {
    slot: u32,
    generation: u32,
}

/// What the endpoint gives out.
#[derive(Debug)]
pub enum Output {
    Transmit { flow: Flow, message: Bytes },
    Event(Event),
}

#[derive(Debug)]
pub enum Event {
    /// Somebody calls. To be answered by `accept`, `reject` or `redirect`, perhaps after `ring`.
    Invite(Invite),
    /// The peer wants other terms; None: it wants our offer. To be answered by `accept` or `reject`.
    Reinvite { call: CallKey, body: Option<Body> },
    /// The ACK of an accepted INVITE has come, with the answer if the offer was ours.
    Established { call: CallKey, body: Option<Body> },
    /// A provisional response to a call of ours.
    Progress { call: CallKey, status: u16 },
    /// Our call is answered; the ACK is on its way.
    Accepted { call: CallKey, body: Option<Body> },
    /// Our call is to be placed elsewhere, at one of these URIs, the preferred first. The call is over.
    Redirected {
        call: CallKey,
        contacts: Vec<String>,
    },
    /// Our call is refused, or (408) nobody answered. The call is over.
    Rejected {
        call: CallKey,
        status: u16,
        retry_after_s: Option<u32>,
    },
    /// A call that was offered, answered or placed is over; said once.
    Ended { call: CallKey, cause: Ended },
    /// Somebody asks what could be had here. To be answered by `respond_options`.
    Options {
        request: RequestKey,
        user: Option<String>,
    },
}

/// An incoming call.
#[derive(Debug)]
pub struct Invite {
    pub call: CallKey,
    /// User part of the Request-URI.
    pub room_user: Option<String>,
    pub request_uri: String,
    /// URI and name of the From header.
    pub from_uri: String,
    pub from_display: Option<String>,
    pub call_id: String,
    pub flow: Flow,
    /// None: the caller expects our offer in the 200.
    pub body: Option<Body>,
}

/// Why a call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer said BYE.
    PeerBye,
    /// The caller cancelled before there was an answer.
    Cancelled,
    /// We said BYE.
    LocalBye,
    /// Our 200 was never acknowledged (RFC 3261 §13.3.1.4).
    AckTimeout,
    /// The connection it depends on is gone.
    TransportFailed,
}

/// A refusal, with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    status: u16,
    retry_after_s: Option<u32>,
    warning: Option<(u16, String)>,
}

impl Rejection {
    /// `status` is a final status that is no success.
    pub fn new(status: u16) -> Self {
        debug_assert!((300..700).contains(&status));
        Self {
            status,
            retry_after_s: None,
            warning: None,
        }
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// A warn-code of RFC 3261 §20.43 with its text.
    pub fn warning(mut self, code: u16, text: &str) -> Self {
        self.warning = Some((code, text.replace(['"', '\\', '\r', '\n'], "'")));
        self
    }
}

/// A call to place.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The URI to call.
    pub target: String,
    /// Our own URI.
    pub from: String,
    /// User part of our Contact.
    pub contact_user: String,
    pub body: Option<Body>,
}

/// Since the endpoint was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that could not be understood, answered with 400 or dropped.
    pub malformed: u64,
    /// Requests that came again.
    pub retransmissions_received: u64,
}

pub struct Endpoint {
    config: Config,
    random: u64,
    generation: u32,
    // Boxed, all three: thousands are made in a second of a rush, and a slab that grows moves what it holds.
    servers: Slab<Box<ServerTransaction>>,
    server_of: HashMap<Key, SlotKey>,
    server_by_identity: HashMap<String, SlotKey>,
    clients: Slab<Box<ClientTransaction>>,
    client_of: HashMap<String, SlotKey>,
    calls: Slab<Box<Call>>,
    call_of: HashMap<DialogKey, CallKey>,
    deadlines: BinaryHeap<Reverse<(Instant, u64, Wake)>>,
    /// Orders deadlines of the same instant.
    armed: u64,
    outputs: VecDeque<Output>,
    counters: Counters,
}

/// Whom a deadline wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Server(SlotKey, Timer),
    Client(SlotKey, Timer),
    /// Our 2xx, sent again after `interval`.
    Answer {
        slot: u32,
        generation: u32,
        interval: Duration,
    },
    /// No ACK has come for our 2xx.
    AckTimeout {
        slot: u32,
        generation: u32,
    },
}

struct ServerTransaction {
    generation: u32,
    key: Key,
    template: Template,
    machine: ServerMachine,
    /// The call of an INVITE.
    call: Option<CallKey>,
    /// For responses outside a dialog, the same in all of them (RFC 3261 §8.2.6.2).
    tag: String,
    /// From-tag, Call-ID and CSeq of the request, by which a merged request is known (§8.2.2.2); empty
    /// within dialogs.
    identity: String,
}

enum ServerMachine {
    Invite(InviteServer),
    Other(server::Server),
}

struct ClientTransaction {
    generation: u32,
    branch: String,
    flow: Flow,
    machine: ClientMachine,
}

enum ClientMachine {
    Invite {
        machine: InviteClient,
        call: CallKey,
    },
    Other {
        machine: client::Client,
    },
}

impl Endpoint {
    pub fn new(config: Config) -> Self {
        Self {
            random: config.seed,
            config,
            generation: 0,
            servers: Slab::new(),
            server_of: HashMap::new(),
            server_by_identity: HashMap::new(),
            clients: Slab::new(),
            client_of: HashMap::new(),
            calls: Slab::new(),
            call_of: HashMap::new(),
            deadlines: BinaryHeap::new(),
            armed: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// What is to be sent or known next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; sometimes sooner than anything happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((when, ..))| *when)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.fire_timers(now);
        self.rest();
    }

    /// Gives back the memory of a rush when nothing of it is left.
    fn rest(&mut self) {
        let empty = self.servers.is_empty() && self.clients.is_empty() && self.calls.is_empty();
        if empty && self.deadlines.is_empty() && self.servers.capacity() > CAPACITY_AT_REST {
            self.servers = Slab::new();
            self.clients = Slab::new();
            self.calls = Slab::new();
            self.server_of = HashMap::new();
            self.server_by_identity = HashMap::new();
            self.client_of = HashMap::new();
            self.call_of = HashMap::new();
            self.deadlines = BinaryHeap::new();
            self.outputs.shrink_to_fit();
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(&Reverse((when, _, wake))) = self.deadlines.peek() {
            if when > now {
                return;
            }
            self.deadlines.pop();
            match wake {
                Wake::Server(key, timer) => self.on_server_timer(now, key, timer),
                Wake::Client(key, timer) => self.on_client_timer(now, key, timer),
                Wake::Answer {
                    slot,
                    generation,
                    interval,
                } => self.on_answer_due(now, CallKey { slot, generation }, interval),
                Wake::AckTimeout { slot, generation } => {
                    self.on_ack_timeout(now, CallKey { slot, generation })
                }
            }
        }
    }

    /// A connection has gone: what can only come or go over it has failed.
    pub fn handle_flow_closed(&mut self, now: Instant, flow: Flow) {
        let of_flow =
            |other: &Flow| other.stream == flow.stream && other.transport == flow.transport;
        let lost: Vec<CallKey> = self.call_keys(|call| of_flow(&call.flow)).collect();
        for call in lost {
            self.end(now, call, Ended::TransportFailed);
            self.drop_call(call);
        }
        let dead: Vec<SlotKey> = self
            .clients
            .iter()
            .filter(|(_, client)| of_flow(&client.flow))
            .map(|(slot, client)| SlotKey {
                slot: slot as u32,
                generation: client.generation,
            })
            .collect();
        dead.into_iter().for_each(|key| self.drop_client(key));
    }

    /// No request of ours waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.clients
            .iter()
            .all(|(_, client)| match &client.machine {
                ClientMachine::Invite { machine, .. } => !machine.is_pending(),
                ClientMachine::Other { machine } => !machine.is_pending(),
            })
            && self.calls.iter().all(|(_, call)| !call.owes_bye())
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn transmit(&mut self, flow: Flow, message: Bytes) {
        self.outputs.push_back(Output::Transmit { flow, message });
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn arm(&mut self, when: Instant, wake: Wake) {
        self.armed += 1;
        self.deadlines.push(Reverse((when, self.armed, wake)));
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.random;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `{owner:x}-{random}`, as [`crate::Glance::owner`] reads it.
    fn new_tag(&mut self) -> String {
        let random = self.random();
        format!("{:x}-{random:016x}", self.config.owner)
    }

    fn new_branch(&mut self) -> String {
        let random = self.random();
        format!("z9hG4bK{:x}-{random:016x}", self.config.owner)
    }

    fn identity(&self, flow: &Flow) -> &ListenerIdentity {
        let listeners = &self.config.listeners;
        // Flows name listeners that the configuration has; one that does not gets the first.
        listeners
            .get(usize::from(flow.listener))
            .unwrap_or(&listeners[0])
    }

    fn server(&mut self, key: SlotKey) -> Option<&mut ServerTransaction> {
        self.servers
            .get_mut(key.slot as usize)
            .map(|server| &mut **server)
            .filter(|server| server.generation == key.generation)
    }

    fn client(&mut self, key: SlotKey) -> Option<&mut ClientTransaction> {
        self.clients
            .get_mut(key.slot as usize)
            .map(|client| &mut **client)
            .filter(|client| client.generation == key.generation)
    }

    fn on_server_timer(&mut self, now: Instant, key: SlotKey, timer: Timer) {
        let Some(server) = self.server(key) else {
            return;
        };
        let mut acts = Acts::default();
        match &mut server.machine {
            ServerMachine::Invite(machine) => {
                if timer == Timer::Trying && machine.wants_trying() {
                    let trying = server
                        .template
                        .response(100, None, &Default::default(), None);
                    machine.respond(100, trying, &mut acts);
                }
                machine.on_timer(timer, &mut acts);
            }
            ServerMachine::Other(machine) => machine.on_timer(timer, &mut acts),
        }
        self.act_server(now, key, acts);
    }

    /// Does what a server machine wants done.
    fn act_server(&mut self, now: Instant, key: SlotKey, acts: Acts) {
        let Some(server) = self.server(key) else {
            return;
        };
        let flow = server.template.flow;
        if let Some(message) = acts.send {
            self.transmit(flow, message);
        }
        for (after, timer) in acts.arm.into_iter().flatten() {
            self.arm(now + after, Wake::Server(key, timer));
        }
        // A refusal that was never acknowledged has ended nothing that was not over (RFC 3261 §17.2.1).
        if acts.terminated {
            let server = self.servers.remove(key.slot as usize);
            self.server_of.remove(&server.key);
            self.server_by_identity.remove(&server.identity);
        }
    }

    fn on_client_timer(&mut self, now: Instant, key: SlotKey, timer: Timer) {
        let Some(client) = self.client(key) else {
            return;
        };
        let mut acts = Acts::default();
        match &mut client.machine {
            ClientMachine::Invite { machine, .. } => machine.on_timer(timer, &mut acts),
            ClientMachine::Other { machine } => machine.on_timer(timer, &mut acts),
        }
        self.act_client(now, key, &mut acts);
    }

    /// Does what a client machine wants done.
    fn act_client(&mut self, now: Instant, key: SlotKey, acts: &mut Acts) {
        let Some(client) = self.client(key) else {
            return;
        };
        let flow = client.flow;
        let call = match &client.machine {
            ClientMachine::Invite { call, .. } => Some(*call),
            ClientMachine::Other { .. } => None,
        };
        if let Some(message) = acts.send.take() {
            self.transmit(flow, message);
        }
        for (after, timer) in acts.arm.iter_mut().filter_map(Option::take) {
            self.arm(now + after, Wake::Client(key, timer));
        }
        if acts.terminated {
            self.drop_client(key);
        }
        if let (true, Some(call)) = (acts.timed_out, call) {
            self.on_no_answer(now, call);
        }
    }

    fn drop_client(&mut self, key: SlotKey) {
        if self.client(key).is_some() {
            let client = self.clients.remove(key.slot as usize);
            self.client_of.remove(&client.branch);
        }
    }
}
