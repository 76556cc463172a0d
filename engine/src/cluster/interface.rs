//! What goes into the rules and what comes out of them, as values.

use std::time::{Duration, SystemTime};

use cfw::SvrId;
use cfw::dist_conf::load::SvrState;
use cfw::dist_conf::message::{ConfUser, Request, Response};

use super::decisions::Decision;
use crate::focus::RoomName;
use crate::focus::liaison::{Order, Report, Wish};

/// What the operator chose, and who this server is.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub svr_id: SvrId,
    /// Where callers go, without a user: `sip:192.0.2.1:5060`, perhaps with `;transport=tcp`.
    pub uri: String,
    /// Where control channels go: `sip:cfw@192.0.2.1:5060`.
    pub cfw_uri: String,
    /// Wall clock when the rules begin; with the time since then it dates decisions.
    pub started: SystemTime,
    /// Shards of this server: their indices are below.
    pub shards: usize,
    /// `cfw_uri`s of other servers; this server's own among them is passed over.
    pub peers: Vec<String>,
    /// Servers that may be added, in this order, and their `cfw_uri`s.
    pub reserved: Vec<(SvrId, String)>,
    /// Callers are passed on by a leg of ours instead of a 302.
    pub relay: bool,
    /// Users of a server that died are called back.
    pub recall: bool,
    /// Takes no callers until another server asks for it.
    pub standby: bool,
    /// There is a program that starts a reserved server ([`Output::RunHook`]).
    pub start_hook: bool,
    /// There is a program that stops one that has given all its users away.
    pub stop_hook: bool,
    /// For how long the load has to be below its minimum before this server gives its users away.
    pub drain_after: Duration,
    /// How long that may take before it is given up.
    pub drain_deadline: Duration,
    /// Mean share of max-load at which a reserved server is added early.
    pub grow_at: f64,
}

/// Names a control channel: who asked for it, and a number that whoever names it never uses again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChannelId {
    /// By [`Output::Dial`]; numbered by the rules.
    Dialled(u32),
    /// The INVITE came from the other side; numbered by whoever runs the rules.
    Accepted(u32),
}

/// Names a request on its channel, in its direction. Of our own: by the rules. Of peers': by whoever runs
/// the rules.
pub type RequestId = u64;

/// This server's load, measured each second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LocalLoad {
    /// In load units, with callers counted who have just been let in.
    pub current: u32,
    /// Above 0.
    pub max: u32,
    /// Below `max`; 0 = never drained.
    pub min: u32,
    /// Utilisation of the busiest core, 0 to 1.
    pub hot: f32,
    /// At the maximum, and since then not clearly below it.
    pub full: bool,
    /// Nobody is let in, not even who was sent here: over the hard cap, or a core is at its end.
    pub capped: bool,
    /// Participants of all rooms of this server.
    pub participants: u32,
    /// Load units of one of them on the average; while there is none, what one is going to cost.
    pub cost: f64,
}

/// Why a channel is not, or no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Closed or reset under us without BYE, or refused by the kernel: nobody is there.
    Reset,
    /// No answer in time, which may as well be the network.
    Timeout,
    /// The other side has ended it by BYE.
    Bye,
    /// Refused by this SIP status, or by this code of the framework.
    Refused(u16),
    /// [`Output::Close`] has been done. May also go unsaid.
    Closed,
}

/// What the operator wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// Give all users away and stand by; None = the configured deadline.
    Drain { deadline: Option<Duration> },
    /// Take callers again.
    Undrain,
    /// So many are expected in this room, 0 to forget it: room is kept for them here.
    Expect { room: RoomName, participants: u32 },
    /// Nobody new gets in, anywhere.
    Lock { room: RoomName, locked: bool },
    /// Something about a user, wherever he is; None = all calls of that entity.
    User {
        room: RoomName,
        entity: String,
        endpoint: Option<String>,
        what: Wish,
    },
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Load(LocalLoad),
    /// A channel is synchronised. `svr_id` if the other side has proved who it is, or said so in its
    /// signalling; else it is told by its first message.
    ChannelUp {
        channel: ChannelId,
        svr_id: Option<SvrId>,
    },
    ChannelDown {
        channel: ChannelId,
        why: Lost,
    },
    /// A peer asks; [`Output::Respond`] answers, in most cases at once. Where that takes longer than the
    /// framework allows, 202 and REPORT are the channel's business.
    Request {
        channel: ChannelId,
        id: RequestId,
        request: Request,
    },
    /// To [`Output::Send`]. Err: a code of the framework, 408 if there was no answer.
    Response {
        channel: ChannelId,
        id: RequestId,
        result: Result<Response, u16>,
    },
    /// From the focus of this shard.
    Report {
        shard: usize,
        report: Report,
    },
    /// `id` is any number; [`Output::Answered`] carries it.
    Operator {
        id: u64,
        wanted: Wanted,
    },
    /// A program that [`Output::RunHook`] asked for has ended; Ok = with success.
    HookDone {
        hook: Hook,
        svr_id: SvrId,
        result: Result<(), String>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Call this URI, connect, synchronise: [`Input::ChannelUp`] or [`Input::ChannelDown`]. The rules close
    /// what takes longer than [`DIAL_BUDGET`](super::DIAL_BUDGET).
    Dial {
        channel: ChannelId,
        uri: String,
        /// Who is expected there, if that is known.
        svr_id: Option<SvrId>,
    },
    /// BYE, with this reason; nothing more is said about the channel.
    Close {
        channel: ChannelId,
        reason: String,
    },
    Send {
        channel: ChannelId,
        id: RequestId,
        request: Request,
    },
    Respond {
        channel: ChannelId,
        id: RequestId,
        response: Response,
    },
    Order {
        shard: usize,
        order: Order,
    },
    /// This server's state, when it has changed: while it is not active, shards ask about every caller.
    /// `Full` follows from the load and is not told here.
    State(SvrState),
    /// So much of the maximum is kept for rooms that expect participants, in load units, when that has
    /// changed: to be counted as load when a shard decides by itself.
    Kept(u32),
    RunHook {
        hook: Hook,
        svr_id: SvrId,
        uri: String,
    },
    /// What became of [`Input::Operator`]: a status as in HTTP.
    Answered {
        id: u64,
        status: u16,
        reason: String,
    },
    /// For the log.
    Decided(Decision),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Start,
    Stop,
}

/// Another server, as this one sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerView {
    pub svr_id: SvrId,
    /// Where callers go; empty while unknown.
    pub uri: String,
    pub cfw_uri: String,
    pub epoch: u64,
    pub state: SvrState,
    pub life: Life,
    pub load: u32,
    /// With callers counted who were sent there and whom its report cannot show yet.
    pub predicted: u32,
    pub max: u32,
    pub min: u32,
    pub hot: Option<f32>,
    /// Of the load report; None = there was none yet.
    pub age: Option<Duration>,
}

/// What is known about whether a server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// There is a channel, and it is heard of.
    Alive,
    /// No channel, or silence: a third server may see it still.
    Suspect,
    /// Nobody sees it.
    Dead,
}

/// A conference over all servers.
#[derive(Clone, Debug, PartialEq)]
pub struct ConferenceView {
    pub id: String,
    /// Who decides over its state.
    pub owner: SvrId,
    pub epoch: u64,
    pub ver: u64,
    pub locked: bool,
    pub subject: Option<String>,
    pub max_users: Option<u32>,
    /// Expected participants; 0 = not said.
    pub expected: u32,
    /// Of all servers, by server and endpoint. [`ConfUser::svr_id`] is set.
    pub users: Vec<ConfUser>,
}
