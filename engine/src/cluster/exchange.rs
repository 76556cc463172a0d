//! Requests and responses of channels: who sent them, in which order, and what each element is for.
//!
//! A channel begins with a snapshot from either side. From then on changes are told; each request to a server
//! has the next number, over all channels with it, so that a gap shows and a snapshot is asked for.

use std::time::Instant;

use cfw::SvrId;
use cfw::dist_conf::message::{
    ConfInfo, Element, OpResult, ParticipantOp, Request, Response, SysOp,
};

use super::Cluster;
use super::answers::{Asker, DEFERRED_FOR, DEFERRED_MAX, Deferred, Outcome};
use super::decisions::What;
use super::interface::{ChannelId, Output, RequestId};
use super::mesh::UNANSWERED_MAX;
use super::recall::Job;

/// Status of a message of an earlier life, or one that came too late: received, and ignored.
const STALE: u16 = 299;

/// Loads are not told on a channel that owes answers to so many: they would be old when they arrive.
const LOADS_UNANSWERED_MAX: usize = 4;

/// What a request of ours was for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Purpose {
    /// Told; nothing follows from the answer.
    Tell,
    /// Part of the snapshot of this number: the next follows.
    Part(u64),
    /// The load was told.
    Load,
    /// A snapshot was asked for.
    Query,
    /// An operation was passed on for somebody.
    Forward(Asker),
    /// A user was to be called by that server, so that he goes there.
    Handover { room: String, endpoint: String },
    /// A user of a dead server was to be called by that server.
    Recall(Box<Job>),
}

impl Cluster {
    pub(super) fn on_request(
        &mut self,
        now: Instant,
        channel: ChannelId,
        id: RequestId,
        request: Request,
    ) {
        let seq = request.seq;
        let Some(link) = self.links.get_mut(&channel).filter(|link| link.is_up) else {
            self.respond(channel, id, seq, 403, Some("there is no such channel"));
            return;
        };
        link.heard = now;
        let bound = link.svr_id;
        let in_load = request.elements.iter().find_map(|element| match element {
            Element::Load(load) => Some(load.svr_id),
            _ => None,
        });
        let Some(from) = request.svr_id.or(bound).or(in_load) else {
            self.respond(channel, id, seq, 400, Some("who sends this?"));
            return;
        };
        if bound.is_some_and(|bound| bound != from) || in_load.is_some_and(|named| named != from) {
            let reason = format!("a message on the channel with {bound:?} is from {from}");
            self.decide(now, What::Deny, None, Some(from), reason);
            self.respond(channel, id, seq, 403, Some("not who was expected"));
            return;
        }
        if bound.is_none() && !self.bind(now, channel, from) {
            return;
        }
        if !self.is_news(now, channel, from, &request) {
            self.respond(channel, id, seq, STALE, Some("stale"));
            return;
        }
        self.process(now, channel, id, from, request);
    }

    /// Checks life and number of a request, and asks for a snapshot if something is missing.
    fn is_news(
        &mut self,
        now: Instant,
        channel: ChannelId,
        from: SvrId,
        request: &Request,
    ) -> bool {
        let Request {
            epoch,
            seq,
            elements,
            ..
        } = request;
        let begins_snapshot = elements.iter().any(
            |element| matches!(element, Element::ConfInfo(info) if info.full && info.part <= 1),
        );
        let (Some(peer), Some(link)) = (self.peers.get_mut(&from), self.links.get_mut(&channel))
        else {
            return false;
        };
        // All that an earlier life has said came by channels of its own. On the only channel there is
        // another epoch is a new life, even a lower one, as of a clock that was set back; so is a server
        // that begins to count again.
        let is_only = peer.links.len() == 1;
        let is_first = link.epoch.is_none();
        if *epoch != 0 && *link.epoch.get_or_insert(*epoch) != *epoch {
            return false;
        }
        let is_lower = *epoch != 0 && *epoch < peer.epoch;
        if is_lower && !(is_only && is_first) {
            return false;
        }
        let begins_again = *seq == 1 && begins_snapshot && peer.seq_in > 0 && is_only;
        if (*epoch != 0 && *epoch != peer.epoch) || begins_again {
            let is_restart = peer.epoch != 0;
            if *epoch != 0 {
                peer.epoch = *epoch;
            }
            peer.seq_in = 0;
            if is_restart {
                self.on_restarted(now, from);
            }
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return false;
        };
        if *seq == 0 {
            return true;
        }
        if *seq <= peer.seq_in {
            return false;
        }
        let is_next = *seq == peer.seq_in + 1;
        peer.seq_in = *seq;
        if !is_next && !begins_snapshot {
            self.query(now, from);
        }
        true
    }

    /// A server has come back as another process: the users of its last life have lost it.
    fn on_restarted(&mut self, now: Instant, id: SvrId) {
        let reason = "has been restarted".to_owned();
        self.decide(now, What::Server, None, Some(id), reason);
        self.close_trunks_with(id);
        self.on_users_orphaned(now, id, true);
        self.rosters.end_life(id);
    }

    fn process(
        &mut self,
        now: Instant,
        channel: ChannelId,
        id: RequestId,
        from: SvrId,
        request: Request,
    ) {
        let key = self.next_deferred;
        self.next_deferred += 1;
        let (mut results, mut waits, mut conf_info, mut reason) = (Vec::new(), 0, None, None);
        let mut status = 200;
        for element in request.elements {
            let mut on_outcome = |outcome| match outcome {
                Outcome::Now(result) => results.push(result),
                Outcome::Later => waits += 1,
            };
            match element {
                Element::Load(load) => match load.min_load < load.max_load {
                    true => self.on_peer_load(now, from, load),
                    false => {
                        status = 400;
                        reason = Some("min-load is not below max-load");
                    }
                },
                Element::ConfInfo(info) if info.query => conf_info = self.on_query(now, from),
                Element::ConfInfo(info) => self.on_conf_info(now, from, info),
                Element::Reserved(list) => self.on_reserved(now, from, list),
                Element::Sys(op) => {
                    let forwards = request.epoch == 0;
                    on_outcome(self.on_peer_sys(now, from, op, forwards, Asker::Peer(key)));
                }
                Element::Participant(op) => {
                    on_outcome(self.on_peer_participant(now, from, op, Asker::Peer(key)));
                }
            }
        }
        if waits > 0 && self.deferred.len() < DEFERRED_MAX {
            let deferred = Deferred {
                channel,
                id,
                seq: request.seq,
                results,
                waits,
                until: now + DEFERRED_FOR,
            };
            self.deferred.insert(key, deferred);
            return;
        }
        if waits > 0 {
            status = 500;
        } else if let Some(failed) = results.iter().find(|result| result.status != 200) {
            status = failed.status;
        }
        self.outputs.push_back(Output::Respond {
            channel,
            id,
            response: Response {
                svr_id: Some(self.config.svr_id),
                seq: request.seq,
                status,
                reason: reason.map(str::to_owned),
                results,
                conf_info,
                load: None,
            },
        });
    }

    fn respond(
        &mut self,
        channel: ChannelId,
        id: RequestId,
        seq: u64,
        status: u16,
        reason: Option<&str>,
    ) {
        self.outputs.push_back(Output::Respond {
            channel,
            id,
            response: Response {
                svr_id: Some(self.config.svr_id),
                seq,
                status,
                reason: reason.map(str::to_owned),
                results: Vec::new(),
                conf_info: None,
                load: None,
            },
        });
    }

    pub(super) fn on_response(
        &mut self,
        now: Instant,
        channel: ChannelId,
        id: RequestId,
        result: Result<Response, u16>,
    ) {
        let Some(link) = self.links.get_mut(&channel) else {
            return;
        };
        if result != Err(408) {
            link.heard = now;
        }
        let Some(purpose) = link.asked.remove(&id) else {
            return;
        };
        let response = match result {
            Ok(response) => response,
            Err(code) => {
                let from = link.svr_id;
                self.on_unanswered(now, from, purpose, code);
                return;
            }
        };
        let bound = link.svr_id;
        if let Some(named) = response.svr_id
            && !self.bind(now, channel, named)
        {
            // Somebody else than was expected answers: nothing he says counts.
            self.on_unanswered(now, bound, purpose, 403);
            return;
        }
        let Some(from) = self.links.get(&channel).and_then(|link| link.svr_id) else {
            return;
        };
        if let Some(load) = response.load.filter(|load| load.svr_id == from) {
            self.on_peer_load(now, from, load);
        }
        if let Some(info) = response.conf_info {
            self.on_conf_info(now, from, info);
        }
        self.on_answered(now, from, purpose, response.status);
    }

    fn on_answered(&mut self, now: Instant, from: SvrId, purpose: Purpose, status: u16) {
        match purpose {
            // Whoever has missed something asks for it.
            Purpose::Tell | Purpose::Load | Purpose::Query => {}
            Purpose::Part(number) => self.on_part_done(now, from, number),
            Purpose::Forward(asker) => self.answer(
                asker,
                OpResult {
                    op: format!("answer of {from}"),
                    status,
                    conf_obj_id: None,
                    ver: None,
                },
            ),
            Purpose::Handover { room, endpoint } => {
                self.on_handed_over(now, &room, &endpoint, status);
            }
            Purpose::Recall(job) => self.after_attempt(now, *job, status / 100 == 2),
        }
    }

    /// A request of ours has failed as such.
    pub(super) fn on_unanswered(
        &mut self,
        now: Instant,
        to: Option<SvrId>,
        purpose: Purpose,
        code: u16,
    ) {
        let status = if code == 408 { 510 } else { 500 };
        let from = to.unwrap_or(self.config.svr_id);
        self.on_answered(now, from, purpose, status);
    }

    /// Sends to a server, by the channel on which we talk with it. False: there is none.
    pub(super) fn send(
        &mut self,
        now: Instant,
        to: SvrId,
        elements: Vec<Element>,
        purpose: Purpose,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&to) else {
            return false;
        };
        let Some(channel) = peer.spoken else {
            return false;
        };
        let Some(link) = self.links.get_mut(&channel) else {
            return false;
        };
        if link.asked.len() >= UNANSWERED_MAX {
            let reason = format!("it owes {UNANSWERED_MAX} answers");
            self.decide(now, What::Server, None, Some(to), reason);
            self.close_links(now, to, "too slow");
            return false;
        }
        peer.seq_out += 1;
        let id = link.next_id;
        link.next_id += 1;
        link.asked.insert(id, purpose);
        self.outputs.push_back(Output::Send {
            channel,
            id,
            request: Request {
                svr_id: Some(self.config.svr_id),
                epoch: self.epoch,
                seq: peer.seq_out,
                elements,
            },
        });
        true
    }

    /// First word on a channel whose other end is not known yet: who this is, and its load. It has no number.
    pub(super) fn hello(&mut self, _now: Instant, channel: ChannelId) {
        let element = match self.own_report() {
            Some(report) => Element::Load(report),
            None => Element::ConfInfo(ConfInfo {
                part: 1,
                parts: 1,
                systems: vec![self.own_system()],
                ..ConfInfo::default()
            }),
        };
        let Some(link) = self.links.get_mut(&channel) else {
            return;
        };
        let id = link.next_id;
        link.next_id += 1;
        link.asked.insert(id, Purpose::Tell);
        self.outputs.push_back(Output::Send {
            channel,
            id,
            request: Request {
                svr_id: Some(self.config.svr_id),
                epoch: self.epoch,
                seq: 0,
                elements: vec![element],
            },
        });
    }

    pub(super) fn broadcast(&mut self, now: Instant, elements: &[Element]) {
        for id in self.spoken_with() {
            self.send(now, id, elements.to_vec(), Purpose::Tell);
        }
    }

    fn spoken_with(&self) -> Vec<SvrId> {
        let peers = self.peers.iter();
        peers
            .filter(|(_, peer)| peer.spoken.is_some())
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn broadcast_load(&mut self, now: Instant, load: Element) {
        for id in self.spoken_with() {
            let link = self.peers.get(&id).and_then(|peer| peer.spoken);
            let link = link.and_then(|channel| self.links.get(&channel));
            let is_load = |purpose: &&Purpose| **purpose == Purpose::Load;
            let owed = link.map(|link| link.asked.values().filter(is_load).count());
            if owed.is_some_and(|owed| owed < LOADS_UNANSWERED_MAX) {
                self.send(now, id, vec![load.clone()], Purpose::Load);
            }
        }
    }

    /// Passes an operation on a conference or a user to another server. Whoever asks hears of it.
    pub(super) fn forward(&mut self, now: Instant, to: SvrId, op: Element, asker: Asker) -> bool {
        self.send(now, to, vec![op], Purpose::Forward(asker))
    }
}

/// Name of an operation's element.
pub(super) fn sys_name(op: &SysOp) -> &'static str {
    use cfw::dist_conf::message::Op;
    match op.op {
        Op::Create => "conf_sys_create",
        Op::Modify => "conf_sys_mod",
        Op::Delete => "conf_sys_del",
    }
}

pub(super) fn participant_name(op: &ParticipantOp) -> &'static str {
    use cfw::dist_conf::message::Op;
    match op.op {
        Op::Create => "conf_prtcs_create",
        Op::Modify => "conf_prtcs_mod",
        Op::Delete => "conf_prtcs_del",
    }
}
