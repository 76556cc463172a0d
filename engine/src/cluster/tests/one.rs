//! One server; the tests play the others.

use cfw::dist_conf::load::SvrLoad;
use cfw::dist_conf::message::{
    ConfInfo, ConfState, ConfUser, Element, Request, Response, System, Users,
};
use sip::CallKey;

use super::super::*;
use super::net::{MAX, Phone, id, load, room, user};
use crate::focus::liaison::{Arrival, Order, Verdict};

/// Server M, and what it has said.
pub(super) struct One {
    pub(super) cluster: Cluster,
    pub(super) now: Instant,
    pub(super) said: Vec<Output>,
    pub(super) numbers: u64,
    pub(super) epoch: u64,
}

impl One {
    pub(super) fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut one = Self {
            cluster: Cluster::new(config, 1, 1, now),
            now,
            said: Vec::new(),
            numbers: 0,
            epoch: 1,
        };
        one.hear(Input::Load(load(100)));
        one
    }

    pub(super) fn hear(&mut self, input: Input) {
        self.cluster.handle(self.now, input);
        self.said
            .extend(std::iter::from_fn(|| self.cluster.poll_output()));
    }

    pub(super) fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.cluster.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.cluster.handle_timeout(self.now);
            self.said
                .extend(std::iter::from_fn(|| self.cluster.poll_output()));
        }
        self.now = end;
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The channel with the server of this name: opened by it when it is new.
    pub(super) fn channel(name: &str) -> ChannelId {
        ChannelId::Accepted(u32::from(name.as_bytes()[0]))
    }

    /// A server comes, and says who it is and how loaded.
    pub(super) fn meet(&mut self, name: &str, current: u32) {
        let (channel, svr_id) = (Self::channel(name), Some(id(name)));
        self.hear(Input::ChannelUp { channel, svr_id });
        let system = System {
            svr_id: id(name),
            active_svrs: 1,
            uri: Some(format!("sip:{name}:5060")),
            cfw_uri: Some(format!("sip:cfw@{name}:5060")),
            state: SvrState::Active,
            epoch: 1,
        };
        let info = ConfInfo {
            full: true,
            part: 1,
            parts: 1,
            systems: vec![system],
            ..ConfInfo::default()
        };
        let elements = vec![
            Element::ConfInfo(info),
            Element::Load(report(name, current)),
        ];
        assert_eq!(self.request(name, 1, elements).status, 200);
    }

    pub(super) fn request(&mut self, name: &str, seq: u64, elements: Vec<Element>) -> Response {
        let request = Request {
            svr_id: Some(id(name)),
            epoch: self.epoch,
            seq,
            elements,
        };
        self.ask(name, request).expect("an answer at once")
    }

    pub(super) fn ask(&mut self, name: &str, request: Request) -> Option<Response> {
        let (channel, number) = (Self::channel(name), self.number());
        self.hear(Input::Request {
            channel,
            id: number,
            request,
        });
        self.said.iter().find_map(|output| match output {
            Output::Respond { id, response, .. } if *id == number => Some(response.clone()),
            _ => None,
        })
    }

    pub(super) fn arrive(&mut self, name: &str, hopped: bool) -> Option<Verdict> {
        let call = CallKey::invented(self.number() as u32);
        let asked = Arrival {
            room: room(name),
            participants: 0,
            hopped,
            from: "sip:caller@phone".to_owned(),
        };
        let (shard, report) = (0, Report::Asked { call, asked });
        self.hear(Input::Report { shard, report });
        self.said.iter().find_map(|output| match output {
            Output::Order {
                order:
                    Order::Placed {
                        call: placed,
                        verdict,
                    },
                ..
            } if *placed == call => Some(verdict.clone()),
            _ => None,
        })
    }

    pub(super) fn join(&mut self, name: &str, entity: &str) {
        let user = Box::new(user(entity, entity, Phone::default()));
        let (shard, report) = (
            0,
            Report::User {
                room: room(name),
                user,
            },
        );
        self.hear(Input::Report { shard, report });
    }

    pub(super) fn leave(&mut self, name: &str, endpoint: &str) {
        let (room, endpoint) = (room(name), endpoint.to_owned());
        let report = Report::UserGone { room, endpoint };
        self.hear(Input::Report { shard: 0, report });
    }

    /// Requests sent to this server since this was asked last: it answers them now.
    pub(super) fn take_requests(&mut self, name: &str) -> Vec<Request> {
        let mut requests = Vec::new();
        for output in std::mem::take(&mut self.said) {
            if let Output::Send {
                channel,
                id: number,
                request,
            } = output
                && channel == Self::channel(name)
            {
                let response = Response {
                    svr_id: Some(id(name)),
                    seq: request.seq,
                    status: 200,
                    reason: None,
                    results: Vec::new(),
                    conf_info: None,
                    load: None,
                };
                self.hear(Input::Response {
                    channel,
                    id: number,
                    result: Ok(response),
                });
                requests.push(request);
            }
        }
        requests
    }

    pub(super) fn answers(&self) -> Vec<(u64, u16)> {
        let answer = |output: &Output| match output {
            Output::Answered { id, status, .. } => Some((*id, *status)),
            _ => None,
        };
        self.said.iter().filter_map(answer).collect()
    }
}

/// What the owner of conference r, in its first version, tells of these users of its own.
pub(super) fn told(owner: &str, users: Vec<ConfUser>) -> ConfInfo {
    let users = Users {
        conf_obj_id: "r".to_owned(),
        owner: Some(id(owner)),
        ver: 1,
        epoch: 1,
        state: ConfState::Active,
        locked: false,
        max_users: None,
        subject: None,
        full: false,
        users,
    };
    ConfInfo {
        conferences: vec![users],
        ..ConfInfo::default()
    }
}

pub(super) fn report(name: &str, current: u32) -> SvrLoad {
    SvrLoad {
        svr_id: id(name),
        current,
        max_load: MAX,
        min_load: 0,
        state: SvrState::Active,
        hot: None,
    }
}

/// A snapshot of a server with so many users, who know Replaces, in one conference.
pub(super) fn snapshot(name: &str, count: usize) -> ConfInfo {
    let phone = Phone {
        refer: false,
        replaces: true,
    };
    let number = |it| user(&format!("sip:{it}@phone"), &format!("{it}"), phone);
    ConfInfo {
        full: true,
        ..told(name, (0..count).map(number).collect())
    }
}
