//! What is said on channels: XML on one side, values on the other.

use std::time::Instant;

use cfw::channel::{Code, Content, Failure, Incoming, Outgoing, SendError};
use cfw::dist_conf::message::{Message, Request, Response};
use cfw::dist_conf::{MEDIA_TYPE, PACKAGE, read, write};

use super::Hub;
use crate::cluster::{ChannelId, Input, RequestId};

/// What the rules hear where there was no answer.
const NO_ANSWER: u16 = 408;

impl Hub {
    /// A request of the rules'.
    pub(super) fn send(&mut self, now: Instant, id: ChannelId, request: RequestId, body: Request) {
        let content = content(&Message::Request(body));
        let package = PACKAGE.parse().map_err(|_| SendError::UnknownPackage);
        let sent = match (package, self.channel(id)) {
            (Ok(package), Some(channel)) => channel.request(now, package, Some(content)),
            (Err(error), _) => Err(error),
            (_, None) => Err(SendError::NotReady),
        };
        match sent {
            Ok(outgoing) => {
                self.counters.messages_out += 1;
                if let Some(link) = self.links.get_mut(&id) {
                    link.sent.insert(outgoing, request);
                }
                self.pump(now, id);
            }
            Err(error) => {
                tracing::debug!(?id, %error, "request not sent");
                let code = match error {
                    SendError::UnknownPackage => Code::PACKAGE_NOT_VALID.0,
                    SendError::Content => Code::SYNTAX_ERROR.0,
                    _ => NO_ANSWER,
                };
                self.tell_response(now, id, request, Err(code));
                // The channel may have found that the peer reads too slowly.
                self.pump(now, id);
            }
        }
    }

    /// The rules' answer to a request of the peer.
    pub(super) fn respond(
        &mut self,
        now: Instant,
        id: ChannelId,
        request: RequestId,
        response: Response,
    ) {
        let failed = Response::new(response.svr_id, response.seq, 500);
        let content = content(&Message::Response(response));
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let (Some(incoming), Some(channel)) = (link.asked.remove(&request), &mut link.channel)
        else {
            return;
        };
        let mut answer = |content| channel.answer(now, incoming, Some(content));
        let answered = answer(content).or_else(|error| {
            tracing::warn!(?id, %error, "response not sent");
            // In the package's words, as a code of the framework may come too late (RFC 6230 §6.3.2).
            answer(self::content(&Message::Response(failed)))
        });
        if answered.is_ok() {
            self.counters.messages_out += 1;
        }
        self.pump(now, id);
    }

    pub(super) fn on_control(
        &mut self,
        now: Instant,
        id: ChannelId,
        incoming: Incoming,
        content: &Content,
    ) {
        self.counters.messages_in += 1;
        let own = self.cluster.config().svr_id;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let Some(channel) = &mut link.channel else {
            return;
        };
        match read(&content.body) {
            Ok(Message::Request(request)) => {
                link.next_request += 1;
                let number = link.next_request;
                link.asked.insert(number, incoming);
                let asked = Input::Request {
                    channel: id,
                    id: number,
                    request,
                };
                self.cluster.handle(now, asked);
            }
            // A response answers; it does not ask.
            Ok(Message::Response(_)) => drop(channel.refuse(incoming, Code::SYNTAX_ERROR)),
            Err(error) => {
                tracing::debug!(?id, %error, "request refused");
                match error.response(own) {
                    Some(response) => {
                        let content = self::content(&Message::Response(response));
                        let _ = channel.answer(now, incoming, Some(content));
                    }
                    None => drop(channel.refuse(incoming, Code::SYNTAX_ERROR)),
                }
            }
        }
    }

    /// Nobody waits for an answer any more.
    pub(super) fn on_abandoned(&mut self, id: ChannelId, incoming: Incoming) {
        if let Some(link) = self.links.get_mut(&id) {
            link.asked.retain(|_, asked| *asked != incoming);
        }
    }

    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        id: ChannelId,
        outgoing: Outgoing,
        content: &Content,
    ) {
        self.counters.messages_in += 1;
        let result = match read(&content.body) {
            // The paper has a result in every response; the framework's 200 says as much.
            _ if content.body.is_empty() => Ok(Response::new(None, 0, 200)),
            Ok(Message::Response(response)) => Ok(response),
            Ok(Message::Request(_)) | Err(_) => Err(Code::SYNTAX_ERROR.0),
        };
        self.done(now, id, outgoing, result);
    }

    pub(super) fn on_failure(
        &mut self,
        now: Instant,
        id: ChannelId,
        outgoing: Outgoing,
        failure: Failure,
    ) {
        let code = match failure {
            Failure::Refused(code) => code.0,
            Failure::OutOfOrder => Code::OUT_OF_ORDER.0,
            Failure::TimedOut | Failure::Closed => NO_ANSWER,
        };
        self.done(now, id, outgoing, Err(code));
    }

    fn done(
        &mut self,
        now: Instant,
        id: ChannelId,
        outgoing: Outgoing,
        result: Result<Response, u16>,
    ) {
        let link = self.links.get_mut(&id);
        if let Some(request) = link.and_then(|link| link.sent.remove(&outgoing)) {
            self.tell_response(now, id, request, result);
        }
    }

    fn tell_response(
        &mut self,
        now: Instant,
        channel: ChannelId,
        id: RequestId,
        result: Result<Response, u16>,
    ) {
        let response = Input::Response {
            channel,
            id,
            result,
        };
        self.cluster.handle(now, response);
    }
}

fn content(message: &Message) -> Content {
    Content::new(MEDIA_TYPE, write(message))
}
