//! The arms side by side, and which differences are none.
//!
//! At the first step both arms are one server with the same users, so what they differ by there is the
//! noise of the measurement: the control. A difference later on that is not larger says nothing.

use serde::Serialize;

use super::{Outcome, Row, Typical, Variant};

/// A series' steps, and what their improvements are worth.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compared {
    /// None where one of the arms was not run, or its first step is not one server with everybody in.
    pub(crate) sip_control: Option<Control>,
    pub(crate) media_control: Option<Control>,
    pub(crate) steps: Vec<Comparison>,
}

/// The first step.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Control {
    /// The improvement of each round, in percent: 0 if nothing disturbed it.
    pub(crate) rounds: Vec<f64>,
    /// The largest quotient of the arms' delays in a round. Improvements by less are noise.
    pub(crate) factor: f64,
}

/// One number of users, the two arms side by side.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) users: usize,
    pub(crate) central: Option<Side>,
    pub(crate) service: Option<Side>,
    pub(crate) sip: Gain,
    pub(crate) media: Gain,
}

/// One arm at one number of users: the median of the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Side {
    /// Users in their conference, in the round with the fewest. Delays are those of these.
    pub(crate) up: usize,
    pub(crate) users: usize,
    /// Servers with callers, in the round with the most.
    pub(crate) servers: usize,
    pub(crate) sip: Option<Typical>,
    pub(crate) media: Option<Typical>,
    pub(crate) near: Option<Typical>,
    pub(crate) far: Option<Typical>,
}

/// By how much the service's delays are below the central server's, in percent.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Gain {
    /// None also where not everybody was in: who is left has it easier.
    pub(crate) here: Option<f64>,
    /// The control differs by as much.
    pub(crate) is_noise: bool,
    pub(crate) published: Option<f64>,
}

impl Side {
    fn over<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> Option<Self> {
        let over =
            |delay: fn(&Row) -> Option<Typical>| Typical::over(rows.clone().filter_map(delay));
        let servers = |row: &Row| {
            let filled = row.servers.iter().filter(|server| server.participants > 0);
            filled.count()
        };
        Some(Self {
            up: rows.clone().map(|row| row.up).min()?,
            users: rows.clone().map(|row| row.users).max()?,
            servers: rows.clone().map(servers).max()?,
            sip: over(|row| row.sip),
            media: over(|row| row.media),
            near: over(|row| row.near),
            far: over(|row| row.far),
        })
    }

    /// Everybody was in, in every round.
    pub(crate) fn is_whole(&self) -> bool {
        self.up == self.users
    }
}

impl Outcome {
    pub(crate) fn compared(&self) -> Compared {
        let sip_control = self.control(|row| row.sip);
        let media_control = self.control(|row| row.media);
        let steps = self.series.steps.iter().map(|&users| {
            let [central, service] = self.sides(users);
            let published = self.series.published_at(users);
            let gain = |control, delay: fn(&Side) -> Option<Typical>, published| {
                let whole = |side: Option<Side>| delay(&side.filter(Side::is_whole)?);
                Gain::new(whole(central), whole(service), control, published)
            };
            Comparison {
                users,
                central,
                service,
                sip: gain(
                    sip_control.as_ref(),
                    |side| side.sip,
                    published.and_then(|published| published.sip),
                ),
                media: gain(
                    media_control.as_ref(),
                    |side| side.media,
                    published.and_then(|published| published.media),
                ),
            }
        });
        Compared {
            steps: steps.collect(),
            sip_control,
            media_control,
        }
    }

    /// Central and service.
    fn sides(&self, users: usize) -> [Option<Side>; 2] {
        [Variant::Central, Variant::Service].map(|variant| Side::over(self.rows(variant, users)))
    }

    fn control(&self, delay: fn(&Row) -> Option<Typical>) -> Option<Control> {
        let users = *self.series.steps.first()?;
        let one_server =
            |side: Option<Side>| side.is_some_and(|side| side.is_whole() && side.servers <= 1);
        if !self.sides(users).into_iter().all(one_server) {
            return None;
        }
        let rounds = self
            .rows(Variant::Central, users)
            .zip(self.rows(Variant::Service, users))
            .filter_map(|(central, service)| Some((delay(central)?, delay(service)?)));
        let factor = rounds
            .clone()
            .map(|(central, service)| quotient(central, service));
        Some(Control {
            factor: factor.max_by(f64::total_cmp)?,
            rounds: rounds
                .map(|(central, service)| improvement(central, service))
                .collect(),
        })
    }
}

impl Gain {
    fn new(
        central: Option<Typical>,
        service: Option<Typical>,
        control: Option<&Control>,
        published: Option<f64>,
    ) -> Self {
        let both = central.zip(service);
        let is_noise = both
            .zip(control)
            .is_some_and(|((central, service), control)| {
                quotient(central, service) <= control.factor
            });
        Self {
            here: both.map(|(central, service)| improvement(central, service)),
            is_noise,
            published,
        }
    }
}

fn improvement(central: Typical, service: Typical) -> f64 {
    let (central, service) = (central.median_second_ms, service.median_second_ms);
    (central - service) / central * 1e2
}

/// The larger delay by the smaller one: as percentages, a half and twice as much would not be alike.
fn quotient(one: Typical, other: Typical) -> f64 {
    let quotient = one.median_second_ms / other.median_second_ms;
    quotient.max(quotient.recip())
}
