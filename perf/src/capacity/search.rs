//! The search for the largest size that holds: doubling until one breaks, then halving what is between.

/// Where the search stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    start: usize,
    most: usize,
    /// Sizes are multiples of this.
    unit: usize,
    /// Good enough: the largest that held and the smallest that broke are this close, as a share.
    precision: f64,
    held: Option<usize>,
    broken: Option<usize>,
}

impl Search {
    pub(super) fn new(start: usize, most: usize, unit: usize, precision: f64) -> Self {
        let whole = |size: usize| (size / unit).max(1) * unit;
        Self {
            start: whole(start.min(most)),
            most: whole(most),
            unit,
            precision,
            held: None,
            broken: None,
        }
    }

    /// The size to try next; None when the answer is known.
    pub(super) fn next(&self) -> Option<usize> {
        let size = match (self.held, self.broken) {
            (None, None) => self.start,
            (Some(held), None) => (held * 2).min(self.most),
            // Nothing held yet: there may be a smaller size that does.
            (held, Some(broken)) => {
                let low = held.unwrap_or(0);
                if (broken - low) as f64 <= self.precision * broken as f64 {
                    return None;
                }
                low.midpoint(broken) / self.unit * self.unit
            }
        };
        (size > self.held.unwrap_or(0) && Some(size) != self.broken).then_some(size)
    }

    pub(super) fn tried(&mut self, size: usize, held: bool) {
        if held {
            self.held = Some(size);
        } else {
            self.broken = Some(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes tried against a server that holds `limit`, and what the search ends with.
    fn run(mut search: Search, limit: usize) -> (Vec<usize>, Option<usize>) {
        let mut sizes = Vec::new();
        while let Some(size) = search.next() {
            sizes.push(size);
            search.tried(size, size <= limit);
            assert!(sizes.len() < 40, "the search does not end: {sizes:?}");
        }
        (sizes, search.held)
    }

    #[test]
    fn the_answer_is_within_the_precision() {
        for limit in (10..40_000).step_by(137) {
            let (_, held) = run(Search::new(500, 64_000, 10, 0.05), limit);
            let held = held.unwrap();
            assert!(held <= limit && held % 10 == 0, "{held} of {limit}");
            // A step of the unit is all there is for small ones.
            assert!(limit - held <= (limit / 19).max(10), "{held} of {limit}");
        }
    }

    #[test]
    fn it_goes_no_further_than_asked_and_ends_where_nothing_holds() {
        assert_eq!(
            run(Search::new(1_000, 3_000, 10, 0.05), 10_000),
            (vec![1_000, 2_000, 3_000], Some(3_000))
        );
        let (sizes, held) = run(Search::new(1_000, 3_000, 10, 0.05), 0);
        assert_eq!((sizes.last(), held), (Some(&10), None));
        assert_eq!(
            run(Search::new(5, 3, 10, 0.05), 100),
            (vec![10], Some(10)),
            "less than a room is a room"
        );
    }
}
