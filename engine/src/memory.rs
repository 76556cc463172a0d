//! Memory that was needed once and is not needed now.

/// Gives what this thread freed back to the system. The allocator does so by itself only while it is
/// at work, and a core that rests after a rush is not. Takes milliseconds after a rush.
pub fn give_back() {
    // SAFETY: may be called at any time, by any thread, for its own heap.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_in_use_stays() {
        let kept = vec![7_u8; 1 << 20];
        drop(vec![8_u8; 1 << 20]);
        super::give_back();
        assert!(kept.iter().all(|&octet| octet == 7));
    }
}
