//! Keys that callers press: a room's number, and *6 to be heard or not.

use super::call::{Gate, PIN_TRIES_MAX};
use super::{Focus, Means};
use crate::io::MediaIo;
use crate::shard::stage::SeatKey;
use sip::CallKey;

/// Switches whether the room hears the caller.
const MUTE: &str = "*6";

impl Focus {
    /// A key that came with the media (RFC 4733).
    pub fn on_key<I: MediaIo>(&mut self, seat: SeatKey, key: char, means: &mut Means<'_, I>) {
        if let Some(&call) = self.by_seat.get(&seat) {
            self.on_key_of(call, key, means);
        }
    }

    pub(super) fn on_key_of<I: MediaIo>(
        &mut self,
        key: CallKey,
        pressed: char,
        means: &mut Means<'_, I>,
    ) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        match &mut call.gate {
            Gate::Pin { .. } if pressed != '#' => {
                call.press(pressed);
            }
            Gate::Pin { pin, tries, .. } => {
                let is_right = std::mem::take(&mut call.keys) == *pin;
                *tries += 1;
                if is_right {
                    self.let_in(key, means);
                } else if *tries >= PIN_TRIES_MAX {
                    means.sip.bye(means.now, key, Some("wrong PIN"));
                }
            }
            Gate::Open => {
                // A command begins with a star; what comes before is nobody's.
                if pressed == '*' {
                    call.keys.clear();
                }
                if call.press(pressed) == MUTE {
                    call.keys.clear();
                    let muted = !call.muted;
                    self.mute(key, muted, means);
                }
            }
        }
    }

    fn let_in<I: MediaIo>(&mut self, key: CallKey, means: &mut Means<'_, I>) {
        if let Some(call) = self.calls.get_mut(&key) {
            call.gate = Gate::Open;
        }
        self.admit(key, means);
        self.tell_roster(key, means);
    }

    /// Lets the room hear a caller, or not.
    pub(super) fn mute<I: MediaIo>(&mut self, key: CallKey, muted: bool, means: &mut Means<'_, I>) {
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        call.muted = muted;
        if let Some(member) = means.stage.member(call.seat) {
            member.mute(muted);
        }
        self.tell_roster(key, means);
    }

    /// Who is let in and has confirmed is spoken to, and heard unless he wants otherwise.
    pub(super) fn admit<I: MediaIo>(&mut self, key: CallKey, means: &mut Means<'_, I>) {
        let Some(call) = self.calls.get(&key) else {
            return;
        };
        let let_in = call.is_let_in();
        if let Some(member) = means.stage.member(call.seat) {
            member.mute(call.muted || !let_in);
            if let_in && call.confirmed {
                member.confirm();
            }
        }
    }
}
