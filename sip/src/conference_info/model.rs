//! A conference as the documents describe it (RFC 4575 §5). What the schema leaves optional is
//! optional here.

use super::Timestamp;

/// A conference and its users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conference {
    /// The conference's URI.
    pub entity: String,
    pub description: Description,
    pub state: ConferenceState,
    /// Each with an entity of their own.
    pub users: Vec<User>,
}

/// What stays the same as users come and go (RFC 4575 §5.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    pub display_text: Option<String>,
    /// URIs for joining, besides the entity. Written with the purpose `participation`.
    pub uris: Vec<String>,
    pub maximum_user_count: Option<u32>,
    pub available_media: Vec<AvailableMedia>,
}

/// A medium that the conference mixes (RFC 4575 §5.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailableMedia {
    /// As `a=label` (RFC 4574) in the conference's session descriptions. The key.
    pub label: String,
    /// As in an `m=` line, such as `audio`.
    pub kind: String,
    pub status: Option<MediaStatus>,
}

/// RFC 4575 §5.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConferenceState {
    pub user_count: Option<u32>,
    /// Who calls the conference's URI gets in.
    pub active: Option<bool>,
    /// Nobody else may join.
    pub locked: Option<bool>,
}

/// A participant (RFC 4575 §5.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// URI of the user; [`anonymous`] makes one for who must not be known. The key.
    pub entity: String,
    pub display_text: Option<String>,
    /// Each with an entity of its own.
    pub endpoints: Vec<Endpoint>,
}

/// A device or session of a user (RFC 4575 §5.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// A URI that no other endpoint of the user has: a Contact or GRUU. The key.
    pub entity: String,
    pub display_text: Option<String>,
    pub status: Option<Status>,
    pub joining_method: Option<JoiningMethod>,
    pub joining: Joining,
    pub disconnection: Option<Disconnection>,
    pub media: Vec<Media>,
}

/// When an endpoint joined, and who brought it in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joining {
    pub when: Option<Timestamp>,
    pub reason: Option<String>,
    /// URI of the one who did it.
    pub by: Option<String>,
}

/// How an endpoint left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disconnection {
    pub method: Option<DisconnectionMethod>,
    pub when: Option<Timestamp>,
    pub reason: Option<String>,
    /// URI of the one who did it.
    pub by: Option<String>,
}

/// A media stream of an endpoint (RFC 4575 §5.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// The key among the endpoint's media.
    pub id: String,
    /// As in an `m=` line, such as `audio`.
    pub kind: Option<String>,
    /// Of the conference's medium that this is part of, see [`AvailableMedia`].
    pub label: Option<String>,
    /// SSRC of what the endpoint sends, which is its CSRC in the mix.
    pub src_id: Option<u32>,
    /// As the endpoint sees it: `SendOnly` hears nothing.
    pub status: Option<MediaStatus>,
}

/// URI of the `number`th user who wants to stay unknown (RFC 4575 §5.6). Numbers are the caller's to
/// keep apart.
pub fn anonymous(number: u32) -> String {
    format!("sip:anonymous{number}@anonymous.invalid")
}

/// An enumeration of the schema: its names here and its words there.
macro_rules! words {
    ($(#[$docs:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$docs])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As the documents write it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            pub(super) fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }
    };
}
pub(super) use words;

words! {
    /// Status of an endpoint (RFC 4575 §5.7.3).
    Status {
        /// Dialling in, not yet connected.
        DialingIn = "dialing-in",
        /// Being called, no answer yet.
        DialingOut = "dialing-out",
        /// Being called, and ringing.
        Alerting = "alerting",
        /// Connected, but not let in yet.
        Pending = "pending",
        Connected = "connected",
        /// Connected, and the focus lets nobody hear it.
        MutedViaFocus = "muted-via-focus",
        OnHold = "on-hold",
        Disconnecting = "disconnecting",
        Disconnected = "disconnected",
    }
}

words! {
    /// How an endpoint joined (RFC 4575 §5.7.4).
    JoiningMethod {
        DialedIn = "dialed-in",
        DialedOut = "dialed-out",
        FocusOwner = "focus-owner",
    }
}

words! {
    /// How an endpoint left (RFC 4575 §5.7.6).
    DisconnectionMethod {
        /// Hung up.
        Departed = "departed",
        /// Was thrown out.
        Booted = "booted",
        /// The call could not be made or broke.
        Failed = "failed",
        /// Was called and busy.
        Busy = "busy",
    }
}

words! {
    /// Direction of a medium, as in SDP (RFC 4575 §5.8.5).
    MediaStatus {
        SendRecv = "sendrecv",
        SendOnly = "sendonly",
        RecvOnly = "recvonly",
        Inactive = "inactive",
    }
}
