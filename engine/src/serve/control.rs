//! What ends, drains, reloads and questions the shards from outside: signals, and the HTTP interface.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::admin::{ClusterView, ConferenceView, ShardQueries};
use crate::cluster::agent::Board;
use crate::cluster::{self, Decision, Wanted};
use crate::config::{Config, ConfigError};
use crate::focus::{Access, RoomName};
use crate::io::tls::Tls;
use crate::log::LogHandle;
use crate::meters::{ServerLoad, ServerState, State};
use crate::shard::ShardIndex;
use crate::shard::mailbox::{DialOrder, HubQuery, Mail, Mailboxes, Query};
use crate::trace::Batch;

/// Drains of the process, which end it; they are called off by `POST /api/v1/undrain`.
#[derive(Default)]
pub(super) struct Drains {
    /// How often one began or was called off: even while there is none.
    turns: Mutex<u64>,
    /// Held while the shards are told.
    telling: Mutex<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Begin,
    CallOff,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drains {
    /// The number of the turn; `None` where it is so already. The state of the server follows it.
    fn turn(&self, turn: Turn, state: &ServerState) -> Option<u64> {
        let mut turns = lock(&self.turns);
        if turns.is_multiple_of(2) != (turn == Turn::Begin) {
            return None;
        }
        *turns += 1;
        state.set(match turn {
            Turn::Begin => State::Draining,
            Turn::CallOff => State::Active,
        });
        Some(*turns)
    }

    fn is_now(&self, turn: u64) -> bool {
        *lock(&self.turns) == turn
    }

    fn is_draining(&self) -> bool {
        !lock(&self.turns).is_multiple_of(2)
    }
}

#[derive(Clone)]
pub(super) struct Control {
    pub(super) config: Arc<Config>,
    pub(super) tls: Arc<Tls>,
    /// Max-load where the configuration names none.
    pub(super) derived: u32,
    pub(super) load: Arc<ServerLoad>,
    pub(super) state: Arc<ServerState>,
    pub(super) mailboxes: Mailboxes,
    pub(super) board: Arc<Board>,
    pub(super) drains: Arc<Drains>,
    pub(super) log: LogHandle,
}

impl Control {
    pub(super) fn listen_to_signals(
        self,
        reload: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    ) -> io::Result<signal_hook::iterator::Handle> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let handle = signals.handle();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut control = self;
                for signal in signals.forever() {
                    match signal {
                        SIGTERM => control.drain_and_end(),
                        SIGINT => control.stop(),
                        _ => control.reload(reload()),
                    }
                }
            })?;
        Ok(handle)
    }

    fn stop(&self) {
        tracing::info!("ending now: BYE to all");
        self.state.set(State::Draining);
        self.tell_all(|| Mail::Stop);
    }

    fn reload(&mut self, new: Result<Config, ConfigError>) {
        let derive = |mut new: Config| new.load.derive(self.derived).map(|()| new);
        let new = match new.and_then(derive) {
            Ok(new) => new,
            Err(error) => return tracing::error!(%error, "configuration not reloaded"),
        };
        let access = match Access::load(&new.auth) {
            Ok(access) => Arc::new(access),
            Err(error) => return tracing::error!(%error, "configuration not reloaded"),
        };
        if let Err(error) = self.tls.reload(&new.sip.tls) {
            return tracing::error!(%error, "configuration not reloaded");
        }
        let reload = self.config.reload_from(&new);
        tracing::info!(changed = ?reload.taken_over, needs_restart = ?reload.needs_restart, "configuration reloaded");
        self.config = Arc::new(reload.config);
        self.load.configure(&self.config.load);
        self.log.set_level(self.config.log.level);
        self.tell_all(|| Mail::Reload(self.config.clone(), access.clone()));
    }

    /// Ends the process when the last call has gone, or when the time for that is over. In a cluster users
    /// are moved to other servers meanwhile.
    fn drain_and_end(&self) {
        let Some(drain) = self.drains.turn(Turn::Begin, &self.state) else {
            return;
        };
        let limit = Duration::from_secs(self.config.server.drain_timeout_s.into());
        tracing::info!(limit_s = limit.as_secs(), "draining: no new calls");
        let control = self.clone();
        // Not waited for: when the calls are gone sooner, the process ends under it.
        thread::spawn(move || {
            control.tell_drain();
            if control.state.is_in_cluster() && control.drains.is_now(drain) {
                let deadline = Some(limit);
                drop(control.order(Wanted::Drain { deadline }));
            }
            thread::sleep(limit);
            if control.drains.is_now(drain) {
                control.stop();
            }
        });
    }

    /// Whoever of several says it last says what is true by then.
    fn tell_drain(&self) {
        let _telling = lock(&self.drains.telling);
        let is_draining = self.drains.is_draining();
        self.tell_all(|| {
            if is_draining {
                Mail::Drain
            } else {
                Mail::Undrain
            }
        });
    }

    /// Posts to every shard and to the hub, waiting for inboxes that are full.
    fn tell_all(&self, mail: impl Fn() -> Mail) {
        for shard in 0..=self.mailboxes.shards() {
            while self
                .mailboxes
                .post(ShardIndex(shard as u16), mail())
                .is_err()
            {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Asks the hub; one whose inbox is full drops the question, which the asker notices.
    fn ask_hub<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> HubQuery,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let mail = Mail::Hub(question(reply));
        drop(self.mailboxes.post(self.mailboxes.hub(), mail));
        answer
    }

    /// Asks every shard; one whose inbox is full drops the question, which the asker notices.
    fn ask_all<T>(
        &self,
        question: impl Fn(ShardIndex, oneshot::Sender<T>) -> Query,
    ) -> Vec<oneshot::Receiver<T>> {
        (0..self.mailboxes.shards())
            .map(|shard| {
                let shard = ShardIndex(shard as u16);
                let (reply, answer) = oneshot::channel();
                drop(
                    self.mailboxes
                        .post(shard, Mail::Query(question(shard, reply))),
                );
                answer
            })
            .collect()
    }
}

impl ShardQueries for Control {
    fn conferences(&self) -> Vec<oneshot::Receiver<Vec<ConferenceView>>> {
        self.ask_all(|_, reply| Query::Conferences { reply })
    }

    fn conference(&self, id: &str) -> Vec<oneshot::Receiver<Option<ConferenceView>>> {
        self.ask_all(|_, reply| Query::Conference {
            id: id.to_owned(),
            reply,
        })
    }

    fn dial(&self, room: RoomName, target: String) -> oneshot::Receiver<u16> {
        let (reply, answer) = oneshot::channel();
        let order = DialOrder {
            room,
            target,
            reply,
            is_placed: false,
        };
        // Any shard finds the one that has the room. A full inbox drops the order, which the asker notices.
        drop(
            self.mailboxes
                .post(ShardIndex(0), Mail::Dial(Box::new(order))),
        );
        answer
    }

    fn trace(&self, from: &[Option<u64>]) -> Vec<oneshot::Receiver<Batch>> {
        self.ask_all(|shard, reply| Query::Trace {
            from: from.get(usize::from(shard.0)).copied().flatten(),
            reply,
        })
    }

    fn drain(&self) {
        if self.state.is_in_cluster() {
            tracing::info!("giving all users away");
            drop(self.order(Wanted::Drain { deadline: None }));
        } else {
            self.drain_and_end();
        }
    }

    fn undrain(&self) {
        if let Some(number) = self.drains.turn(Turn::CallOff, &self.state) {
            tracing::info!(number, "not draining any more");
            let control = self.clone();
            // Inboxes may be full; whoever asks over HTTP is not to wait for them.
            thread::spawn(move || control.tell_drain());
        }
        drop(self.order(Wanted::Undrain));
    }

    fn cluster(&self) -> ClusterView {
        ClusterView::of(&self.board.look())
    }

    fn order(&self, wanted: Wanted) -> oneshot::Receiver<(u16, String)> {
        self.ask_hub(|reply| HubQuery::Operator { wanted, reply })
    }

    fn roster(&self, id: Option<&str>) -> oneshot::Receiver<Vec<cluster::ConferenceView>> {
        let room = id.map(str::to_owned);
        self.ask_hub(|reply| HubQuery::Roster { room, reply })
    }

    fn decisions(&self) -> oneshot::Receiver<Vec<Decision>> {
        self.ask_hub(|reply| HubQuery::Decisions { reply })
    }
}
