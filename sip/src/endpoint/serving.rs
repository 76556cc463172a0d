//! Server transactions: made for a request, answered, or not made at all.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use bytes::Bytes;

use super::incoming::{Incoming, Refusal};
use super::{Endpoint, ServerMachine, ServerTransaction, SlotKey};
use crate::message::build::{Extra, Template};
use crate::message::{Message, Via};
use crate::transaction::invite_server::InviteServer;
use crate::transaction::key::Key;
use crate::transaction::{Acts, Reliable, server};
use crate::{Body, Flow};

impl Endpoint {
    pub(super) fn add_server(
        &mut self,
        now: Instant,
        incoming: &Incoming<'_>,
        key: Key,
    ) -> SlotKey {
        let &Incoming {
            message,
            method,
            identity,
            flow,
            via,
            ..
        } = incoming;
        let generation = self.next_generation();
        let reliable = Reliable(flow.transport.is_reliable());
        let mut acts = Acts::default();
        let machine = match method {
            "INVITE" => {
                ServerMachine::Invite(InviteServer::new(self.config.timers, reliable, &mut acts))
            }
            _ => ServerMachine::Other(server::Server::new(self.config.timers, reliable)),
        };
        let server = ServerTransaction {
            generation,
            key: key.clone(),
            template: Template::new(message, via, flow, self.overload.as_ref()),
            machine,
            cseq: identity.cseq.number,
            call: None,
            dialog: None,
            is_refer: false,
            tag: self.new_tag(),
            identity: String::new(),
        };
        let slot = SlotKey {
            slot: self.servers.insert(Box::new(server)) as u32,
            generation,
        };
        self.server_of.insert(key, slot);
        self.act_server(now, slot, acts);
        slot
    }

    /// Answers without remembering anything (RFC 3261 §8.2.7): the same request again gets the same answer,
    /// and those who send nothing else cost no memory.
    pub(super) fn refuse(
        &mut self,
        flow: Flow,
        message: &Message<'_>,
        via: &Via,
        refusal: Refusal,
    ) {
        let Refusal(status, extra) = refusal;
        if status == 400 {
            self.counters.malformed += 1;
        }
        let mut hasher = DefaultHasher::new();
        self.config.seed.hash(&mut hasher);
        let parts = [
            message.header("Call-ID"),
            message.header("From"),
            via.branch.as_deref(),
        ];
        parts.hash(&mut hasher);
        let tag = format!("{:x}-{:016x}", self.config.owner, hasher.finish());
        let template = Template::new(message, via, flow, self.overload.as_ref());
        let tag = (!template.has_to_tag()).then_some(tag);
        let extra = extra.line("Server", &self.config.user_agent);
        let response = template.response(status, tag.as_deref(), &extra, None);
        self.transmit(template.flow, response);
    }

    /// Answers a request outside of what a dialog adds.
    pub(super) fn respond(
        &mut self,
        now: Instant,
        key: SlotKey,
        status: u16,
        extra: Extra,
        body: Option<&Body>,
    ) -> Bytes {
        let user_agent = self.config.user_agent.clone();
        let Some(server) = self.server(key) else {
            return Bytes::new();
        };
        let tag = (!server.template.has_to_tag()).then(|| server.tag.clone());
        let response = server.template.response(
            status,
            tag.as_deref(),
            &extra.line("Server", user_agent),
            body,
        );
        let mut acts = Acts::default();
        match &mut server.machine {
            ServerMachine::Invite(machine) => machine.respond(status, response.clone(), &mut acts),
            ServerMachine::Other(machine) => machine.respond(response.clone(), &mut acts),
        }
        self.act_server(now, key, acts);
        response
    }
}
