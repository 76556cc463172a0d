//! Counts of nonces.

use super::*;
use crate::digest::NonceCounts;

/// Verified credentials of a nonce issued at `seconds`.
fn use_of(seconds: u64, nonce_count: u32, client_nonce: &str) -> Verified {
    let challenges = authenticator().challenges(at(seconds), false);
    let value = answer(
        [challenges[0].as_str()],
        &alice(),
        &INVITE,
        client_nonce,
        nonce_count,
    )
    .unwrap()
    .value;
    verdict_at(seconds, &authenticator(), &value).unwrap()
}

#[test]
fn each_count_is_good_once() {
    let mut counts = NonceCounts::new(8);
    // Counts as they arrive, and whether they are taken.
    for (count, is_new) in [
        (1, true),
        (1, false),
        (2, true),
        (1, false),
        (70, true),
        (7, true),
        (7, false),
        (6, false), // too far behind to be remembered
        (2, false),
        (69, true),
        (70, false),
        (1000, true),
        (70, false),
        (0, false),
        (u32::MAX, true),
        (u32::MAX, false),
    ] {
        assert_eq!(
            counts.admit(at(0), &use_of(0, count, "c")),
            is_new,
            "{count}"
        );
    }
    assert_eq!(counts.len(), 1);
}

#[test]
fn zero_and_big_first_counts() {
    for first in [0, 64, u32::MAX] {
        let mut counts = NonceCounts::new(8);
        assert!(counts.admit(at(0), &use_of(0, first, "c")));
        assert!(!counts.admit(at(0), &use_of(0, first, "c")));
    }
}

/// Callers of one moment have the same nonce.
#[test]
fn clients_do_not_disturb_each_other() {
    let mut counts = NonceCounts::new(8);
    assert!(counts.admit(at(0), &use_of(0, 1, "c")));
    assert!(counts.admit(at(0), &use_of(0, 1, "d")));
    assert!(counts.admit(at(1), &use_of(1, 1, "c")));
    assert!(!counts.admit(at(1), &use_of(0, 1, "c")));
    assert_eq!(counts.len(), 3);
}

#[test]
fn expired_nonces_are_forgotten() {
    let mut counts = NonceCounts::new(8);
    assert!(counts.is_empty());
    for seconds in [0, 1, 50] {
        assert!(counts.admit(at(seconds), &use_of(seconds, 1, "c")));
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.admit(at(61), &use_of(61, 1, "c")));
    assert_eq!(counts.len(), 2);
}

#[test]
fn memory_is_bounded_and_the_oldest_goes_first() {
    let mut counts = NonceCounts::new(2);
    assert!(counts.admit(at(0), &use_of(0, 1, "c")));
    assert!(counts.admit(at(1), &use_of(1, 1, "c")));
    // Full, but known already: nothing goes.
    assert!(counts.admit(at(1), &use_of(1, 2, "c")));
    assert!(!counts.admit(at(1), &use_of(0, 1, "c")));
    assert!(counts.admit(at(2), &use_of(2, 1, "c")));
    assert_eq!(counts.len(), 2);
    assert!(!counts.admit(at(2), &use_of(1, 1, "c")));
    assert!(!counts.admit(at(2), &use_of(2, 1, "c")));
    // An older one than those that are there is remembered all the same.
    assert!(counts.admit(at(2), &use_of(0, 2, "c")));
    assert!(!counts.admit(at(2), &use_of(0, 2, "c")));
    assert!(!counts.admit(at(2), &use_of(2, 1, "c")));
    assert!(NonceCounts::new(0).admit(at(0), &use_of(0, 1, "c")));
}
