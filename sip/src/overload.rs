//! Overload control between hops (RFC 7339): what a server tells the proxies before it.
//!
//! ```text
//!   load / limit ──once a second──> LossController ──percent──> Feedback ──> top Via of responses
//! ```
//! A proxy that takes part puts `oc` and `oc-algo` into its Via; the response carries the share of
//! requests it is to hold back, `oc=20;oc-algo="loss";oc-validity=2000;oc-seq=1282321615.782`. The
//! loss algorithm alone, which every participant has (RFC 7339 §5.2).
//!
//! Not here: holding back. This stack sends no requests for others.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The algorithm's name in `oc-algo`.
const LOSS: &str = "loss";

/// Utilisation at which shedding begins, ends again, and is complete. Between the first two it goes on
/// once it has begun, so that upstream does not see it switched with every call.
const BEGIN: f64 = 1.0;
const END: f64 = 0.9;
const COMPLETE: f64 = 1.2;

/// How much the newest second counts: overload is answered at once and forgotten slowly.
const RISING: f64 = 0.7;
const FALLING: f64 = 0.3;

/// Utilisation that is counted at most, so that a wild second is forgotten in a few.
const UTILISATION_MAX: f64 = 2.0;

/// What is told upstream at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// `oc`: of a hundred requests, hold back so many. 0 to 100.
    loss_percent: u8,
    /// `oc-validity`: forget this after so long.
    validity: Duration,
    /// `oc-seq`, since 1970: of two of our answers the one with the higher number counts.
    seq: Duration,
}

impl Feedback {
    /// `wall` numbers it: a later feedback needs a later time. No loss is said with a validity of 0,
    /// which switches control off (RFC 7339 §4.3).
    pub fn new(loss_percent: u8, validity: Duration, wall: SystemTime) -> Self {
        let loss_percent = loss_percent.min(100);
        Self {
            loss_percent,
            validity: if loss_percent == 0 {
                Duration::ZERO
            } else {
                validity
            },
            seq: wall.duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }
}

/// The Via parameters, without a semicolon before the first.
impl fmt::Display for Feedback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            loss_percent,
            validity,
            seq,
        } = self;
        write!(
            f,
            "oc={loss_percent};oc-algo=\"{LOSS}\";oc-validity={};oc-seq={}.{:03}",
            validity.as_millis(),
            seq.as_secs(),
            seq.subsec_millis()
        )
    }
}

/// Whether the hop that wrote this Via value takes part with an algorithm we have. One that names no
/// algorithm is taken to have the one that all have.
pub(crate) fn is_asked_for(via: &str) -> bool {
    let mut asked = false;
    let mut has_loss = true;
    for parameter in via.split(';').skip(1) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = name.trim();
        if name.eq_ignore_ascii_case("oc") {
            asked = true;
        } else if name.eq_ignore_ascii_case("oc-algo") {
            has_loss = value
                .split([',', '"', ' '])
                .any(|algorithm| algorithm.eq_ignore_ascii_case(LOSS));
        }
    }
    asked && has_loss
}

/// Whether a Via parameter is one of those that [`Feedback`] writes.
pub(crate) fn is_parameter(name: &str) -> bool {
    ["oc", "oc-algo", "oc-validity", "oc-seq"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

/// From utilisation to the share of requests to hold back: smoothed, in proportion, with hysteresis.
#[derive(Clone, Debug, Default)]
pub struct LossController {
    smoothed: f64,
    active: bool,
}

impl LossController {
    /// To be called once a second with load over limit; 1 is full. Returns percent.
    pub fn update(&mut self, utilisation: f64) -> u8 {
        if !utilisation.is_nan() {
            let newest = utilisation.clamp(0.0, UTILISATION_MAX);
            let weight = if newest > self.smoothed {
                RISING
            } else {
                FALLING
            };
            self.smoothed += weight * (newest - self.smoothed);
        }
        self.active = self.smoothed >= if self.active { END } else { BEGIN };
        if !self.active {
            return 0;
        }
        let share = (self.smoothed - END) / (COMPLETE - END);
        // At least one: 0 would switch control off.
        (share * 100.0).round().clamp(1.0, 100.0) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_is_written_as_rfc_7339_has_it() {
        let wall = UNIX_EPOCH + Duration::from_millis(1_282_321_615_782);
        let validity = Duration::from_millis(500);
        for (loss, text) in [
            (
                20,
                "oc=20;oc-algo=\"loss\";oc-validity=500;oc-seq=1282321615.782",
            ),
            (
                0,
                "oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1282321615.782",
            ),
            (
                200,
                "oc=100;oc-algo=\"loss\";oc-validity=500;oc-seq=1282321615.782",
            ),
        ] {
            assert_eq!(Feedback::new(loss, validity, wall).to_string(), text);
        }
        // Never without digits behind the dot, never more than the grammar's five.
        let whole = Feedback::new(1, validity, UNIX_EPOCH + Duration::from_secs(7));
        assert!(whole.to_string().ends_with("oc-seq=7.000"), "{whole}");
    }

    #[test]
    fn who_asks_with_loss_is_answered() {
        for (via, asks) in [
            ("SIP/2.0/UDP h;branch=z9hG4bKa;oc;oc-algo=\"loss\"", true),
            ("SIP/2.0/UDP h;oc;oc-algo=\"loss,A\"", true),
            ("SIP/2.0/UDP h;OC ; OC-ALGO = \"rate, LOSS\"", true),
            ("SIP/2.0/UDP h;oc", true),
            ("SIP/2.0/UDP h;oc-algo=\"rate\";oc", false),
            ("SIP/2.0/UDP h;oc-algo=\"loss\"", false),
            ("SIP/2.0/UDP h;branch=oc", false),
            ("SIP/2.0/UDP oc;branch=z9hG4bKoc", false),
            ("", false),
        ] {
            assert_eq!(is_asked_for(via), asks, "{via}");
        }
    }

    /// Percent for each second's utilisation.
    fn losses(seconds: &[f64]) -> Vec<u8> {
        let mut controller = LossController::default();
        seconds
            .iter()
            .map(|&utilisation| controller.update(utilisation))
            .collect()
    }

    #[test]
    fn a_server_with_room_sheds_nothing() {
        assert_eq!(losses(&[0.0, 0.5, 0.99, 0.99, 0.99, 0.99]), [0; 6]);
        assert_eq!(losses(&[0.0, 0.2, 1.3, 0.2]), [0; 4], "one wild second");
    }

    #[test]
    fn overload_is_shed_in_proportion() {
        let steady = |utilisation: f64| *losses(&[utilisation; 30]).last().unwrap();
        assert_eq!(steady(1.0), 0, "approached from below and never reached");
        assert_eq!(steady(1.05), 50);
        assert_eq!(steady(1.11), 70);
        assert_eq!(steady(1.2), 100);
        assert_eq!(steady(50.0), 100);
        assert_eq!(steady(f64::INFINITY), 100);
    }

    #[test]
    fn it_rises_fast_falls_slowly_and_ends_well_below_the_limit() {
        let mut seconds = vec![1.2; 5];
        seconds.extend([0.95; 20]);
        let told = losses(&seconds);
        assert!(told[1] > 50 && told[4] > 98, "{told:?}");
        assert!(told[5] > 60, "{told:?}");
        assert!(told.windows(2).skip(4).all(|two| two[1] <= two[0]));
        assert_eq!(told[24], 17, "goes on between the limits: {told:?}");
        let mut controller = LossController::default();
        for utilisation in seconds {
            controller.update(utilisation);
        }
        let ends = (0..20).map(|_| controller.update(0.5)).position(|l| l == 0);
        assert!(ends.is_some_and(|after| after <= 2), "{ends:?}");
        assert_eq!(controller.update(0.99), 0, "and begins only at the limit");
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let mut controller = LossController::default();
        controller.update(1.2);
        let before = controller.update(1.2);
        assert!(before > 0);
        assert_eq!(controller.update(f64::NAN), before);
    }
}
