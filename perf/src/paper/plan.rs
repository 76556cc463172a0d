//! What the paper did, and what it published.

use serde::Serialize;

/// One of the paper's two settings: the load at which a server is full, and the numbers of users.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) max_load: u32,
    /// Users in all, one step after the other; the first is what one server takes.
    pub(crate) steps: Vec<usize>,
    pub(crate) published: Vec<Published>,
    /// What every server's SIP messages and packets are multiplied with before they are added up.
    pub(crate) weight: f64,
}

/// By how much the service's delays are below the central server's, in percent, as published.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Published {
    pub(crate) users: usize,
    pub(crate) sip: Option<f64>,
    pub(crate) media: Option<f64>,
}

/// The paper counts 10 units of load for a user (500 for 50). Its own sum, SIP messages and packets a
/// second, is 100 for a phone with packets of 20 ms, 50 in and 50 out. A tenth of the sum is the paper's.
pub(crate) const PAPER_WEIGHT: f64 = 0.1;

/// Steps of each series: 1, 2, ... times what one server takes.
const STEPS: usize = 5;

impl Series {
    /// The paper's setting with this max-load: 500 (figures 5 and 6) or 700 (figure 7).
    pub(crate) fn of_paper(max_load: u32) -> Option<Self> {
        let published = match max_load {
            500 => [
                (100, Some(17.4), 25.8),
                (150, Some(28.6), 32.3),
                (250, Some(39.5), 43.9),
            ],
            700 => [(140, None, 26.7), (210, None, 39.3), (350, None, 50.5)],
            _ => return None,
        };
        let published = published.map(|(users, sip, media)| Published {
            users,
            sip,
            media: Some(media),
        });
        Some(Self {
            max_load,
            steps: steps((max_load / 10) as usize, STEPS),
            published: published.to_vec(),
            weight: PAPER_WEIGHT,
        })
    }

    /// The same at this engine's scale: so many users fill a server, counted by the literal sum.
    pub(crate) fn at_scale(users: usize, servers: usize, packets_per_s: u32) -> Self {
        Self {
            max_load: (users as u32).saturating_mul(packets_per_s),
            steps: steps(users, servers),
            published: Vec::new(),
            weight: 1.0,
        }
    }

    /// Servers that the last step needs.
    pub(crate) fn servers(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn users(&self) -> usize {
        self.steps.last().copied().unwrap_or(0)
    }

    pub(crate) fn published_at(&self, users: usize) -> Option<Published> {
        self.published
            .iter()
            .find(|published| published.users == users)
            .copied()
    }
}

fn steps(users: usize, count: usize) -> Vec<usize> {
    (1..=count).map(|step| step * users).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_those_of_the_paper() {
        let five = Series::of_paper(500).unwrap();
        assert_eq!(five.steps, [50, 100, 150, 200, 250]);
        assert_eq!(five.published_at(150).unwrap().sip, Some(28.6));
        assert!(five.published_at(200).is_none());
        let seven = Series::of_paper(700).unwrap();
        assert_eq!(seven.steps, [70, 140, 210, 280, 350]);
        assert_eq!(seven.published_at(350).unwrap().media, Some(50.5));
        assert!(Series::of_paper(600).is_none());
    }

    #[test]
    fn a_user_counts_ten_in_the_papers_series_and_every_packet_one_at_scale() {
        let packets = 100;
        let paper = Series::of_paper(500).unwrap();
        let user = f64::from(packets) * paper.weight;
        assert_eq!(f64::from(paper.max_load) / user, paper.steps[0] as f64);
        let ours = Series::at_scale(1_500, 3, packets);
        assert_eq!(ours.steps, [1_500, 3_000, 4_500]);
        assert_eq!(
            (ours.max_load, ours.servers(), ours.users()),
            (150_000, 3, 4_500)
        );
    }
}
