//! A line of `GET /api/v1/trace`: one JSON object.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::redact::redact;
use super::{Direction, Record};

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Message(SipMessage),
    /// Messages of this core that were overwritten before they were asked for.
    Missed {
        core: usize,
        messages: u64,
    },
}

/// A message that this server received or sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SipMessage {
    #[serde(serialize_with = "rfc3339", deserialize_with = "from_rfc3339")]
    pub time: SystemTime,
    /// The processor that handled it.
    pub core: usize,
    pub direction: Direction,
    /// As Via names it: `UDP`, `TCP`.
    pub transport: Cow<'static, str>,
    pub peer: SocketAddr,
    /// The listening address of the server.
    pub local: SocketAddr,
    /// Empty if there is none.
    pub call_id: String,
    /// All of it, secrets blanked out, what is no UTF-8 replaced.
    pub text: String,
}

impl SipMessage {
    pub(crate) fn new(core: usize, record: &Record) -> Self {
        let call_id = sip::scan(&record.message).map_or_else(
            |_| Cow::default(),
            |glance| String::from_utf8_lossy(glance.call_id),
        );
        Self {
            time: record.at,
            core,
            direction: record.direction,
            transport: record.flow.transport.name().into(),
            peer: record.flow.peer,
            local: record.local,
            call_id: call_id.into_owned(),
            text: String::from_utf8_lossy(&redact(&record.message)).into_owned(),
        }
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_micros(*time))
}

fn from_rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::record;

    #[test]
    fn lines_are_what_they_were_when_read_back() {
        let record = record("BYE sip:a SIP/2.0\r\nCall-ID: \"x\u{1}\r\n\r\n");
        let message = SipMessage::new(3, &record);
        let lines = [
            (
                Line::Message(message),
                "{\"message\":{\"time\":\"2023-11-14T22:13:20.000000Z\",\"core\":3,\"direction\":\"in\",\
                 \"transport\":\"UDP\",\"peer\":\"192.0.2.1:40000\",\"local\":\"192.0.2.9:5060\",\
                 \"call_id\":\"\\\"x\\u0001\",\"text\":\"BYE sip:a SIP/2.0\\r\\nCall-ID: \\\"x\\u0001\\r\\n\\r\\n\"}}",
            ),
            (
                Line::Missed {
                    core: 1,
                    messages: 7,
                },
                "{\"missed\":{\"core\":1,\"messages\":7}}",
            ),
        ];
        for (line, expected) in lines {
            let mut json = simd_json::to_vec(&line).unwrap();
            assert_eq!(str::from_utf8(&json).unwrap(), expected);
            assert_eq!(simd_json::from_slice::<Line>(&mut json).unwrap(), line);
        }
    }
}
