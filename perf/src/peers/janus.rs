//! Janus as a contender: rooms of its AudioBridge, joined over its HTTP API by plain RTP participants.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use ureq::Agent;

use crate::child::{Server, free_port};
use crate::rooms::{Seat, Signalling, Stream};

const PLUGIN: &str = "janus.plugin.audiobridge";

/// How long a request may take, and all joins from one to the next.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers taken in by one poll.
const EVENTS_MAX: usize = 100;

/// Joins asked for before their answers are looked at.
const JOINS_TOGETHER: usize = 50;

pub(super) struct Janus {
    // Ends before its folder goes.
    server: Server,
    pub(super) http: SocketAddr,
    _folder: Folder,
}

/// The server's configuration, while it runs.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Janus {
    pub(super) fn start(binary: &Path, core: usize) -> Result<Self, String> {
        let http = free_port(Ipv4Addr::LOCALHOST.into())?;
        let folder = std::env::temp_dir().join(format!("plenum-perf-janus-{}", std::process::id()));
        let folder = configure(folder, http.port())
            .map_err(|error| format!("its configuration cannot be written: {error}"))?;
        let mut command = Command::new(binary);
        command
            .arg("--configs-folder")
            .arg(&folder.0)
            .args(["--debug-level", "1", "--disable-colors"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = Server::start(&mut command, core)
            .map_err(|error| format!("{error} (perf/setup.sh janus installs it)"))?;
        let url = format!("http://{http}/janus/info");
        server.wait_until(|| ureq::get(&url).call().ok().map(drop))?;
        Ok(Self {
            server,
            http,
            _folder: folder,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(super) fn callers(&self) -> Callers {
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .build();
        Callers {
            agent: config.into(),
            base: format!("http://{}/janus", self.http),
            session: None,
            rooms: Vec::new(),
        }
    }
}

/// Only the AudioBridge and HTTP, on loopback; sessions last until they are ended.
fn configure(folder: PathBuf, port: u16) -> std::io::Result<Folder> {
    std::fs::create_dir_all(&folder)?;
    let folder = Folder(folder);
    let files = [
        (
            "janus.jcfg",
            format!(
                "general: {{ session_timeout = 0 }}\nmedia: {{ ipv6 = false }}\n\
                 plugins: {{ disable = \"{}\" }}\ntransports: {{ disable = \"{}\" }}\n",
                [
                    "duktape",
                    "echotest",
                    "lua",
                    "nosip",
                    "recordplay",
                    "sip",
                    "streaming",
                    "textroom",
                    "videocall",
                    "videoroom",
                    "voicemail",
                ]
                .map(|plugin| format!("libjanus_{plugin}.so"))
                .join(","),
                ["mqtt", "nanomsg", "pfunix", "rabbitmq", "websockets"]
                    .map(|transport| format!("libjanus_{transport}.so"))
                    .join(",")
            ),
        ),
        (
            "janus.transport.http.jcfg",
            format!(
                "general: {{ json = \"compact\" base_path = \"/janus\" http = true port = {port} \
                 ip = \"127.0.0.1\" https = false }}\nadmin: {{ admin_http = false }}\n"
            ),
        ),
        (
            "janus.plugin.audiobridge.jcfg",
            "general: { local_ip = \"127.0.0.1\" rtp_port_range = \"20000-32000\" }\n".to_owned(),
        ),
    ];
    for (name, text) in files {
        std::fs::write(folder.0.join(name), text)?;
    }
    Ok(folder)
}

pub(super) struct Callers {
    agent: Agent,
    base: String,
    session: Option<u64>,
    /// Rooms made, and by which handle. Callers come room by room.
    rooms: Vec<(u64, usize)>,
}

#[derive(Serialize)]
struct Request<'a> {
    janus: &'a str,
    transaction: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
}

#[derive(Serialize)]
struct Body<'a> {
    request: &'a str,
    room: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling_rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_rtp_participants: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codec: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtp: Option<Rtp>,
}

impl<'a> Body<'a> {
    fn new(request: &'a str, room: usize) -> Self {
        Self {
            request,
            room,
            sampling_rate: None,
            allow_rtp_participants: None,
            codec: None,
            rtp: None,
        }
    }
}

/// Where a side wants its packets.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Rtp {
    ip: String,
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_type: Option<u8>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    janus: String,
    sender: Option<u64>,
    data: Option<Data>,
    error: Option<Failure>,
    plugindata: Option<PluginData>,
}

#[derive(Debug, Deserialize)]
struct Data {
    id: u64,
}

#[derive(Debug, Deserialize)]
struct Failure {
    reason: String,
}

#[derive(Debug, Deserialize)]
struct PluginData {
    data: Outcome,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    error: Option<String>,
    rtp: Option<Rtp>,
}

impl Answer {
    /// What failed, as either layer says it.
    fn failure(&self) -> Option<&str> {
        let plugin = self.plugindata.as_ref();
        let said = self.error.as_ref().map(|error| error.reason.as_str());
        said.or_else(|| plugin?.data.error.as_deref())
            .or_else(|| (self.janus == "error").then_some("an error"))
    }
}

fn parse<T: for<'a> Deserialize<'a>>(mut text: Vec<u8>) -> Result<T, String> {
    simd_json::from_slice(&mut text)
        .map_err(|error| format!("Janus answers what it should not: {error}"))
}

impl Callers {
    fn post(&self, path: &str, request: &Request<'_>) -> Result<Answer, String> {
        let text = simd_json::to_vec(request).expect("a request has a JSON form");
        let url = format!("{}{path}", self.base);
        let answer = self
            .agent
            .post(&url)
            .content_type("application/json")
            .send(&text)
            .and_then(|mut answer| answer.body_mut().read_to_vec())
            .map_err(|error| format!("{url}: {error}"))?;
        let answer: Answer = parse(answer)?;
        match answer.failure() {
            Some(reason) => Err(format!("Janus says: {reason}")),
            None => Ok(answer),
        }
    }

    /// Makes a session or, in one, a handle of the plugin.
    fn make(&self, path: &str, janus: &str, plugin: Option<&str>) -> Result<u64, String> {
        let request = Request {
            janus,
            transaction: "make",
            plugin,
            body: None,
        };
        let answer = self.post(path, &request)?;
        answer
            .data
            .map(|data| data.id)
            .ok_or_else(|| format!("Janus gave no id: {}", answer.janus))
    }

    fn message(&self, session: u64, handle: u64, body: Body<'_>) -> Result<(), String> {
        let request = Request {
            janus: "message",
            transaction: "message",
            plugin: None,
            body: Some(body),
        };
        self.post(&format!("/{session}/{handle}"), &request)
            .map(drop)
    }

    /// Waits for the answers to joins, and keeps where each handle's caller is to send.
    fn poll(&self, session: u64, joined: &mut HashMap<u64, SocketAddr>) -> Result<(), String> {
        let url = format!("{}/{session}?maxev={EVENTS_MAX}", self.base);
        let answers = self
            .agent
            .get(&url)
            .call()
            .and_then(|mut answer| answer.body_mut().read_to_vec())
            .map_err(|error| format!("{url}: {error}"))?;
        for answer in parse::<Vec<Answer>>(answers)? {
            if let Some(reason) = answer.failure() {
                return Err(format!("Janus says: {reason}"));
            }
            let rtp = answer.plugindata.and_then(|plugin| plugin.data.rtp);
            if let (Some(handle), Some(rtp)) = (answer.sender, rtp) {
                let ip = rtp
                    .ip
                    .parse()
                    .map_err(|_| format!("{} is no address", rtp.ip))?;
                joined.insert(handle, SocketAddr::new(ip, rtp.port));
            }
        }
        Ok(())
    }
}

impl Signalling for Callers {
    fn join(&mut self, seats: &[Seat]) -> Result<Vec<Stream>, String> {
        let session = self.make("", "create", None)?;
        self.session = Some(session);
        let path = format!("/{session}");
        let mut handles = Vec::new();
        let mut joined = HashMap::new();
        for seat in seats {
            if seat.ptime_ms != 20 {
                return Err("Janus sends packets of 20 ms only".to_owned());
            }
            let handle = self.make(&path, "attach", Some(PLUGIN))?;
            let room = seat.room + 1;
            if self.rooms.last().is_none_or(|&(_, last)| last != room) {
                self.rooms.push((handle, room));
                let create = Body {
                    sampling_rate: Some(8_000),
                    allow_rtp_participants: Some(true),
                    ..Body::new("create", room)
                };
                self.message(session, handle, create)?;
            }
            let join = Body {
                codec: Some(seat.codec.name()),
                rtp: Some(Rtp {
                    ip: seat.local.ip().to_string(),
                    port: seat.local.port(),
                    payload_type: Some(seat.codec.payload_type()),
                }),
                ..Body::new("join", room)
            };
            self.message(session, handle, join)?;
            handles.push(handle);
            if handles.len() - joined.len() >= JOINS_TOGETHER {
                self.poll(session, &mut joined)?;
            }
        }
        let start = Instant::now();
        while joined.len() < handles.len() {
            if start.elapsed() > PATIENCE {
                return Err(format!("{} of {} joined", joined.len(), handles.len()));
            }
            self.poll(session, &mut joined)?;
        }
        let streams = handles.iter().zip(seats).map(|(handle, seat)| Stream {
            remote: joined[handle],
            payload_type: seat.codec.payload_type(),
        });
        Ok(streams.collect())
    }

    fn keep(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn leave(&mut self) -> Result<(), String> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        for (handle, room) in std::mem::take(&mut self.rooms) {
            self.message(session, handle, Body::new("destroy", room))?;
        }
        let request = Request {
            janus: "destroy",
            transaction: "leave",
            plugin: None,
            body: None,
        };
        self.post(&format!("/{session}"), &request)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        parse(text.as_bytes().to_vec()).unwrap()
    }

    /// As Janus 1.1.2 said it.
    #[test]
    fn answers_are_read() {
        let attached = answer(
            r#"{"janus":"success","session_id":6312053982686922,"transaction":"make","data":{"id":3732992620802556}}"#,
        );
        assert_eq!(attached.failure(), None);
        assert_eq!(attached.data.unwrap().id, 3_732_992_620_802_556);
        let made = answer(
            r#"{"janus":"success","session_id":6312053982686922,"transaction":"message","sender":3732992620802556,"plugindata":{"plugin":"janus.plugin.audiobridge","data":{"audiobridge":"created","room":1,"permanent":false}}}"#,
        );
        assert_eq!(made.failure(), None);
        let joined = answer(
            r#"{"janus":"event","session_id":6312053982686922,"transaction":"message","sender":3732992620802556,"plugindata":{"plugin":"janus.plugin.audiobridge","data":{"audiobridge":"joined","room":1,"id":3610717458723107,"participants":[],"rtp":{"ip":"127.0.0.1","port":20000,"payload_type":0}}}}"#,
        );
        assert_eq!(
            joined.plugindata.unwrap().data.rtp,
            Some(Rtp {
                ip: "127.0.0.1".to_owned(),
                port: 20_000,
                payload_type: Some(0),
            })
        );
    }

    #[test]
    fn failures_of_both_layers_are_told() {
        let plugin = answer(
            r#"{"janus":"success","session_id":6312053982686922,"transaction":"message","sender":3732992620802556,"plugindata":{"plugin":"janus.plugin.audiobridge","data":{"audiobridge":"event","error_code":486,"error":"Room 1 already exists"}}}"#,
        );
        assert_eq!(plugin.failure(), Some("Room 1 already exists"));
        let core = answer(
            r#"{"janus":"error","session_id":1234,"transaction":"make","error":{"code":458,"reason":"No such session 1234"}}"#,
        );
        assert_eq!(core.failure(), Some("No such session 1234"));
        assert!(parse::<Answer>(b"<html>".to_vec()).is_err());
    }

    #[test]
    fn a_join_says_where_to_send() {
        let body = Body {
            codec: Some("PCMU"),
            rtp: Some(Rtp {
                ip: "127.0.0.1".to_owned(),
                port: 4_000,
                payload_type: Some(0),
            }),
            ..Body::new("join", 7)
        };
        assert_eq!(
            simd_json::to_string(&body).unwrap(),
            r#"{"request":"join","room":7,"codec":"PCMU","rtp":{"ip":"127.0.0.1","port":4000,"payload_type":0}}"#
        );
    }
}
