//! Who may come in: open to all, for users with a password, for those who know a number.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sip::Rejection;
use sip::digest::{self, Algorithm, Authenticator, NonceCounts};

use crate::config::{self, AuthConfig, Config, ConfigError, Network};
use crate::random::Random;
use crate::users::Users;

/// How long a caller may use the nonce of a challenge.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);

/// Nonces in use that a core remembers: two a call, for the calls of a minute.
const NONCES_MAX: usize = 65_536;

/// What all cores know about users; never changes, but is replaced.
#[derive(Debug)]
pub struct Access {
    authenticator: Authenticator,
    users: Users,
    trusted: Vec<Network>,
}

impl Access {
    /// # Errors
    /// The users file cannot be used.
    pub fn load(config: &AuthConfig) -> Result<Self, ConfigError> {
        let users = match &config.users {
            None => Users::default(),
            Some(path) => Users::load(path)
                .map_err(|error| ConfigError::new("auth.users", error.to_string()))?,
        };
        // Without a secret nonces are this process's own. A reload makes a new one: who was challenged just
        // before is challenged again, without being asked for his password.
        let random = || {
            let mut random = Random::from_entropy();
            (0..4)
                .flat_map(|_| random.next_u64().to_le_bytes())
                .collect()
        };
        let secret = config.secret.as_ref();
        let authenticator = Authenticator::new(digest::Config {
            realm: config.realm.clone(),
            secret: secret.map_or_else(random, |secret| secret.clone().into_bytes()),
            nonce_lifetime: NONCE_LIFETIME,
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            qop_auth_int: config.auth_int,
        });
        Ok(Self {
            authenticator: authenticator
                .map_err(|error| ConfigError::new("auth.realm", error.to_string()))?,
            users,
            trusted: config.trusted.clone(),
        })
    }

    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// A core's door.
#[derive(Debug)]
pub(super) struct Door {
    access: Arc<Access>,
    used: NonceCounts,
}

/// What a request says of its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) address: IpAddr,
    /// Values of Authorization and Proxy-Authorization.
    pub(super) authorization: &'a [String],
    pub(super) method: &'a str,
    pub(super) uri: &'a str,
    pub(super) body: &'a [u8],
}

/// How somebody comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Free,
    /// He has to key in this number.
    AfterPin(String),
}

impl Door {
    pub(super) fn new(access: Arc<Access>) -> Self {
        Self {
            access,
            used: NonceCounts::new(NONCES_MAX),
        }
    }

    pub(super) fn replace(&mut self, access: Arc<Access>) {
        self.access = access;
    }

    /// How the sender of a request comes into a room.
    ///
    /// # Errors
    /// He does not; or not before he has answered the challenge.
    pub(super) fn ask(
        &mut self,
        wall: SystemTime,
        config: &Config,
        room: &str,
        asking: Asking<'_>,
    ) -> Result<Entry, Rejection> {
        match config.rooms.access_to(room) {
            config::Access::Open => Ok(Entry::Free),
            config::Access::Authenticated => self.identify(wall, asking).map(|()| Entry::Free),
            // Phones that have a password need no number; those that offer none are not asked for one.
            config::Access::Pin(_) if self.access.trusts(asking.address) => Ok(Entry::Free),
            config::Access::Pin(_) if !asking.authorization.is_empty() => {
                self.identify(wall, asking).map(|()| Entry::Free)
            }
            config::Access::Pin(pin) => Ok(Entry::AfterPin(pin.clone())),
        }
    }

    /// Whether the sender is trusted or a user.
    ///
    /// # Errors
    /// The challenge.
    pub(super) fn identify(
        &mut self,
        wall: SystemTime,
        asking: Asking<'_>,
    ) -> Result<(), Rejection> {
        if self.access.trusts(asking.address) {
            return Ok(());
        }
        let Access {
            authenticator,
            users,
            ..
        } = &*self.access;
        let request = digest::Request {
            method: asking.method,
            uri: asking.uri,
            body: asking.body,
        };
        let mut stale = false;
        for value in asking.authorization {
            match authenticator.verify(wall, value, &request, |name| users.secret(name)) {
                Ok(verified) if self.used.admit(wall, &verified) => return Ok(()),
                Ok(_) => stale = true,
                Err(digest::Failure::WrongRealm) => continue,
                Err(failure) => stale = failure.is_stale(),
            }
            break;
        }
        let challenges = authenticator.challenges(wall, stale);
        let challenge = |rejection: Rejection, value| rejection.header("WWW-Authenticate", value);
        Err(challenges.into_iter().fold(Rejection::new(401), challenge))
    }
}

#[cfg(test)]
mod tests {
    use sip::digest::Credentials;

    use super::*;

    const URI: &str = "sip:board@192.0.2.1";

    fn door(users: &str) -> (Door, Config) {
        let name = format!(
            "plenum-access-{}-{:?}.toml",
            std::process::id(),
            std::thread::current().id()
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, users).unwrap();
        let sets = [
            format!("auth.users={}", path.display()),
            "auth.trusted=198.51.100.0/24".to_owned(),
            "rooms.policies=board=authenticated,sales=pin:4711".to_owned(),
        ];
        let config = Config::load(None, [].into_iter(), &sets, &[0]).unwrap();
        let access = Access::load(&config.auth);
        std::fs::remove_file(path).unwrap();
        (Door::new(Arc::new(access.unwrap())), config)
    }

    fn asking(address: [u8; 4], authorization: &[String]) -> Asking<'_> {
        Asking {
            address: address.into(),
            authorization,
            method: "INVITE",
            uri: URI,
            body: b"",
        }
    }

    /// What a phone with this password says to a challenge.
    fn answer(challenge: &Rejection, password: &str) -> Vec<String> {
        let credentials = Credentials {
            username: "alice".to_owned(),
            password: password.to_owned(),
            realm: None,
        };
        let request = digest::Request {
            method: "INVITE",
            uri: URI,
            body: b"",
        };
        let challenges: Vec<&str> = challenge.values("WWW-Authenticate").collect();
        assert_eq!(challenges.len(), 2, "SHA-256 and MD5");
        assert!(challenges[0].contains("SHA-256") && challenges[1].contains("MD5"));
        let answer = digest::answer(challenges, &credentials, &request, "c", 1);
        vec![answer.unwrap().value]
    }

    const STRANGER: [u8; 4] = [203, 0, 113, 9];
    const TRUSTED: [u8; 4] = [198, 51, 100, 7];

    #[test]
    fn a_room_for_users_wants_a_password_once() {
        let (mut door, config) = door("[alice]\npassword = \"open sesame\"\n");
        let wall = SystemTime::now();
        let mut ask = |address, authorization: &[String]| {
            door.ask(wall, &config, "board", asking(address, authorization))
        };
        let challenge = ask(STRANGER, &[]).unwrap_err();
        assert_eq!(challenge.status(), 401);
        let right = answer(&challenge, "open sesame");
        assert_eq!(ask(STRANGER, &right), Ok(Entry::Free));
        // The same once more is somebody who has listened.
        let again = ask(STRANGER, &right).unwrap_err();
        assert!(
            again
                .values("WWW-Authenticate")
                .all(|value| value.contains("stale=true"))
        );
        let wrong = answer(&again, "open barley");
        let refused = ask(STRANGER, &wrong).unwrap_err();
        assert!(
            !refused
                .values("WWW-Authenticate")
                .any(|value| value.contains("stale=true"))
        );
        assert_eq!(ask(TRUSTED, &[]), Ok(Entry::Free));
    }

    #[test]
    fn a_number_is_for_those_without_a_password() {
        let (mut door, config) = door("[alice]\npassword = \"open sesame\"\n");
        let wall = SystemTime::now();
        let mut ask = |room, address, authorization: &[String]| {
            door.ask(wall, &config, room, asking(address, authorization))
        };
        assert_eq!(
            ask("sales", STRANGER, &[]),
            Ok(Entry::AfterPin("4711".to_owned()))
        );
        assert_eq!(ask("sales", TRUSTED, &[]), Ok(Entry::Free));
        let challenge = ask("board", STRANGER, &[]).unwrap_err();
        let right = answer(&challenge, "open sesame");
        assert_eq!(ask("sales", STRANGER, &right), Ok(Entry::Free));
        assert_eq!(ask("lobby", STRANGER, &[]), Ok(Entry::Free));
    }
}
