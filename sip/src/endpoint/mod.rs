//! A user agent with any number of calls.
//!
//! `handle_*` takes in, `poll_*` gives out; after any call, drain [`Endpoint::poll_output`] until it is
//! None.
//!
//! ```text
//!   incoming ──> in_dialog ──┬─> call ── session (RFC 4028), reliable (RFC 3262)
//!   client   ──> answers ────┘   subscription (RFC 6665)
//! ```
//! Messages pass through their transaction first ([`incoming`] what others ask, [`client`] what we ask, in
//! one [`attempt`] or more);
//! what is news reaches a call or a subscription, which share their [`dialog`]; [`outgoing`] holds what
//! the user of the endpoint may do, [`changing`] how he changes a call that is up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;

use crate::digest::Credentials;
use crate::message::build::Template;
use crate::overload::Feedback;
use crate::transaction::invite_client::InviteClient;
use crate::transaction::invite_server::InviteServer;
use crate::transaction::key::Key;
use crate::transaction::{Acts, Timer, Timers, client as client_machine, server};
use crate::{Flow, Transport};

mod abilities;
mod answers;
mod attempt;
mod call;
mod changing;
mod client;
mod dialog;
mod event;
mod gauges;
mod in_dialog;
mod incoming;
mod outgoing;
mod overload;
mod reliable;
mod serving;
mod session;
mod subscription;

use call::Call;
use client::Purpose;
use dialog::{Dialog, DialogKey, Usage};
pub use event::{Counters, Ended, Event, Invitation, Invite, Method, Rejection, Request};
pub use gauges::Sizes;
pub use outgoing::{Named, Peer, TooManyCalls};
pub use session::SessionPolicy;
use subscription::Subscription;

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
    /// Calls, and subscriptions, beyond this are refused with 503.
    pub calls_max: usize,
    /// Requests outside of a dialog are dropped while this many others are remembered, those within one
    /// while twice as many are.
    pub transactions_max: usize,
    pub session: SessionPolicy,
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
            transactions_max: 400_000,
            session: SessionPolicy::default(),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey {
    slot: u32,
    generation: u32,
}

impl CallKey {
    /// A key of no call, for whoever simulates calls or tests what is done with keys.
    pub const fn invented(number: u32) -> Self {
        Self {
            slot: u32::MAX,
            generation: number,
        }
    }
}

/// For names that others keep: `slot.generation`.
impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Names a subscription for as long as it lives; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey {
    slot: u32,
    generation: u32,
}

/// Names a request of the user's until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(u32);

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
    subscriptions: Slab<Box<Subscription>>,
    dialog_of: HashMap<DialogKey, Usage>,
    deadlines: BinaryHeap<Reverse<(Instant, u64, Wake)>>,
    /// Orders deadlines of the same instant.
    armed: u64,
    outputs: VecDeque<Output>,
    counters: Counters,
    /// For proxies that ask for it.
    overload: Option<Feedback>,
}

/// Whom a deadline wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Server(SlotKey, Timer),
    Client(SlotKey, Timer),
    /// Our 2xx to the INVITE of this number, sent again after the interval.
    Answer(CallKey, u32, Duration),
    /// No ACK has come for it.
    AckTimeout(CallKey, u32),
    /// Our provisional response of this number, sent again after the interval.
    Reliable(CallKey, u32, Duration),
    /// The session is to be refreshed, or has expired.
    Session(CallKey, u32),
    /// A subscription's time is over.
    Subscription(SubscriptionKey, u32),
}

struct ServerTransaction {
    generation: u32,
    key: Key,
    template: Template,
    machine: ServerMachine,
    /// Number of the request: by it an ACK means an INVITE, whatever has come in the dialog since.
    cseq: u32,
    /// The call of an INVITE.
    call: Option<CallKey>,
    /// The dialog of a subscription, should the request be accepted.
    dialog: Option<Box<Dialog>>,
    is_refer: bool,
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
    /// The way it would have taken, had it not been too large.
    udp: Option<Flow>,
    purpose: Purpose,
    /// For a challenge on the way.
    credentials: Option<Arc<Credentials>>,
    /// In how many forms it has been tried, this one included.
    forms: u8,
    /// The To-tags of the 2xx to an INVITE that have been acknowledged: a forking proxy brings several.
    answered: Vec<Option<String>>,
    machine: ClientMachine,
}

enum ClientMachine {
    Invite(InviteClient),
    Other(client_machine::Client),
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
            subscriptions: Slab::new(),
            dialog_of: HashMap::new(),
            deadlines: BinaryHeap::new(),
            armed: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            overload: None,
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
        let empty = self.servers.is_empty()
            && self.clients.is_empty()
            && self.calls.is_empty()
            && self.subscriptions.is_empty();
        if empty && self.deadlines.is_empty() && self.servers.capacity() > CAPACITY_AT_REST {
            self.servers = Slab::new();
            self.clients = Slab::new();
            self.calls = Slab::new();
            self.server_of = HashMap::new();
            self.server_by_identity = HashMap::new();
            self.client_of = HashMap::new();
            self.subscriptions = Slab::new();
            self.dialog_of = HashMap::new();
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
                Wake::Answer(key, cseq, interval) => self.on_answer_due(now, key, cseq, interval),
                Wake::AckTimeout(key, cseq) => self.on_ack_timeout(now, key, cseq),
                Wake::Reliable(key, rseq, interval) => {
                    self.on_reliable_due(now, key, rseq, interval);
                }
                Wake::Session(key, epoch) => self.on_session_due(now, key, epoch),
                Wake::Subscription(key, epoch) => self.on_subscription_due(now, key, epoch),
            }
        }
    }

    /// Nothing is held of anything: no call, no transaction, no name of one, no deadline.
    pub fn is_empty(&self) -> bool {
        let tables = [
            self.servers.len(),
            self.server_of.len(),
            self.server_by_identity.len(),
            self.clients.len(),
            self.client_of.len(),
            self.calls.len(),
            self.subscriptions.len(),
            self.dialog_of.len(),
            self.deadlines.len(),
        ];
        tables.iter().all(|&len| len == 0)
    }

    /// No request of ours waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.clients.iter().all(|(_, client)| !client.is_pending())
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

    /// A deadline minutes away is looked at now and then, so that what ended long before it leaves nothing
    /// armed for longer than a transaction would.
    fn arm_far(&mut self, now: Instant, when: Instant, wake: Wake) {
        self.arm(when.min(now + self.config.timers.patience()), wake);
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
}
