//! Shards that only pretend, and a server before them.

use super::*;

/// Two shards that share one conference; the second can be told to stay silent.
#[derive(Default)]
pub(super) struct FakeShards {
    pub(super) silent: AtomicBool,
    pub(super) drains: AtomicU32,
    pub(super) orders: Mutex<Vec<Wanted>>,
    /// Questions that a silent shard holds.
    pub(super) held: Mutex<Vec<oneshot::Sender<Vec<ConferenceView>>>>,
}

impl FakeShards {
    pub(super) fn record(number: u64) -> Record {
        Record {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
            direction: Direction::In,
            flow: sip::Flow {
                transport: sip::Transport::Tcp,
                peer: "192.0.2.1:40000".parse().unwrap(),
                listener: 0,
                stream: 1,
            },
            local: "192.0.2.9:5060".parse().unwrap(),
            message: format!("BYE sip:room{number}@h SIP/2.0\r\nCall-ID: call-{number}\r\n\r\n")
                .into(),
        }
    }

    pub(super) fn part(shard: usize) -> ConferenceView {
        let participant = ParticipantView {
            entity: format!("sip:user{shard}@127.0.0.1"),
            svr_id: "A".to_owned(),
            codec: "pcmu".to_owned(),
            status: "connected".to_owned(),
            muted: false,
            talking: shard == 0,
            level_dbov: -20,
            joined: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        };
        ConferenceView {
            id: "blue room".to_owned(),
            uri: "sip:blue%20room@127.0.0.1:5060".to_owned(),
            svr_id: "A".to_owned(),
            participants: vec![participant],
            heard: (shard == 1)
                .then_some(Contributor { ssrc: 7, level: 30 })
                .into_iter()
                .collect(),
        }
    }
}

impl ShardQueries for FakeShards {
    fn conferences(&self) -> Vec<oneshot::Receiver<Vec<ConferenceView>>> {
        let question = |shard| {
            let (sender, receiver) = oneshot::channel();
            if shard == 1 && self.silent.load(Ordering::Relaxed) {
                self.held.lock().unwrap().push(sender);
            } else {
                sender.send(vec![Self::part(shard)]).unwrap();
            }
            receiver
        };
        (0..2).map(question).collect()
    }

    fn dial(&self, room: RoomName, target: String) -> oneshot::Receiver<u16> {
        let (sender, receiver) = oneshot::channel();
        let status = match (room.as_str(), target.starts_with("sip:")) {
            (_, false) => 416,
            ("unknown", _) => 404,
            ("full", _) => 503,
            _ => 100,
        };
        sender.send(status).unwrap();
        receiver
    }

    fn conference(&self, id: &str) -> Vec<oneshot::Receiver<Option<ConferenceView>>> {
        let question = |shard| {
            let (sender, receiver) = oneshot::channel();
            // A silent shard's mailbox is full: the question is dropped.
            if shard == 0 || !self.silent.load(Ordering::Relaxed) {
                sender
                    .send(Some(Self::part(shard)).filter(|part| part.id == id))
                    .unwrap();
            }
            receiver
        };
        (0..2).map(question).collect()
    }

    /// The first shard has recorded three calls, of which the first is forgotten; the second shard's
    /// mailbox is full.
    fn trace(&self, from: &[Option<u64>]) -> Vec<oneshot::Receiver<Batch>> {
        let (sender, receiver) = oneshot::channel();
        let next = from[0].unwrap_or(1);
        let batch = Batch {
            records: (next..3).take(1).map(Self::record).collect(),
            next: (next + 1).min(3),
            missed: u64::from(next == 2) * 5,
            more: next < 2,
        };
        sender.send(batch).unwrap();
        vec![receiver, oneshot::channel().1]
    }

    fn drain(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
    }

    fn undrain(&self) {
        self.drains.store(0, Ordering::Relaxed);
    }

    fn cluster(&self) -> ClusterView {
        ClusterView::default()
    }

    /// Knows one user.
    fn order(&self, wanted: Wanted) -> oneshot::Receiver<(u16, String)> {
        let (sender, receiver) = oneshot::channel();
        let answer = match &wanted {
            Wanted::User { entity, .. } if entity != "sip:user1@127.0.0.1" => {
                (404, format!("no user {entity}"))
            }
            _ => (200, String::new()),
        };
        self.orders.lock().unwrap().push(wanted);
        sender.send(answer).unwrap();
        receiver
    }

    /// Another server has two users, one of them in a conference of its own.
    fn roster(&self, id: Option<&str>) -> oneshot::Receiver<Vec<cluster::ConferenceView>> {
        let conference = |id: &str, svr_ids: &[&str]| cluster::ConferenceView {
            id: id.to_owned(),
            owner: svr_ids[0].parse().unwrap(),
            epoch: 1,
            ver: 1,
            locked: false,
            subject: None,
            max_users: None,
            expected: 0,
            users: svr_ids
                .iter()
                .map(|svr_id| ConfUser {
                    entity: format!("sip:far@{svr_id}"),
                    svr_id: Some(svr_id.parse().unwrap()),
                    endpoint: "1".to_owned(),
                    display_name: None,
                    status: UserStatus::OnHold,
                    ssrc: Some(7),
                    codec: Some("opus".to_owned()),
                    role: None,
                    muted: true,
                    joined: None,
                    reach: None,
                })
                .collect(),
        };
        let (sender, receiver) = oneshot::channel();
        let mut all = vec![
            conference("blue room", &["A", "B"]),
            conference("far", &["B"]),
        ];
        all.retain(|conference| id.is_none_or(|id| id == conference.id));
        sender.send(all).unwrap();
        receiver
    }

    fn decisions(&self) -> oneshot::Receiver<Vec<Decision>> {
        let (sender, receiver) = oneshot::channel();
        let decision = Decision {
            at_ms: 1_700_000_000_250,
            what: What::Redirect,
            room: Some("blue room".to_owned()),
            who: None,
            server: Some("B".to_owned()),
            status: Some(302),
            reason: "at the maximum".to_owned(),
            seen: [].into(),
        };
        sender.send(vec![decision]).unwrap();
        receiver
    }
}

pub(super) struct Fixture {
    pub(super) admin: Admin,
    pub(super) shards: Arc<FakeShards>,
    pub(super) thread: AdminThread,
}

/// A server with two cores of which only the admin part is there.
pub(super) fn admin(shards: Arc<FakeShards>) -> Admin {
    let sets = ["load.max=500".to_owned(), "load.min=50".to_owned()];
    let config = Arc::new(Config::load(None, std::iter::empty(), &sets, &[0, 3]).unwrap());
    Admin {
        meters: Arc::new(Meters::new(&config.server.cores)),
        cluster_meters: Arc::default(),
        load: Arc::new(ServerLoad::new(&config.load)),
        state: Arc::new(ServerState::default()),
        shards,
        watchers: Watchers::default(),
        started: Instant::now(),
        config,
    }
}

impl Fixture {
    pub(super) fn start() -> Self {
        let shards = Arc::new(FakeShards::default());
        let admin = admin(shards.clone());
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let thread = AdminThread::start(listener, admin.clone()).unwrap();
        Self {
            admin,
            shards,
            thread,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.thread.local_address())
    }

    pub(super) fn get(&self, path: &str) -> (u16, String) {
        answer(agent().get(self.url(path)).call())
    }

    pub(super) fn post(&self, path: &str) -> (u16, String) {
        answer(agent().post(self.url(path)).send_empty())
    }

    /// Everything the server says to these bytes until it closes the connection.
    pub(super) fn raw(&self, request: &str) -> String {
        let mut stream = net::TcpStream::connect(self.thread.local_address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is one way to close.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}
