//! SIP over WebSocket (RFC 7118): a SIP message in each message of the WebSocket.

use async_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use async_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::tungstenite::{Message, Utf8Bytes};
use async_tungstenite::{WebSocketReceiver, WebSocketSender, accept_hdr_async_with_config};
use bytes::Bytes;
use futures_lite::StreamExt;
use futures_lite::future::or;
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::channels::local_channel::LocalReceiver;

use super::connection::{Connection, PONG, WRITE_TIMEOUT, within};

/// Longest SIP message: a header block and a body of 64 KiB each, as on a stream.
const MESSAGE_LEN_MAX: usize = 128 * 1_024;

/// Each connection has a buffer of this size; longer messages take several reads.
const READ_BUFFER: usize = 4 * 1_024;

/// What may wait in the WebSocket to be written: a message, and answers to pings.
const WRITE_BUFFER_MAX: usize = 2 * MESSAGE_LEN_MAX;

/// The subprotocol of RFC 7118 §4.
const SUBPROTOCOL: &str = "sip";

/// Answers the WebSocket handshake and carries messages. Ends, and with it the connection, as one
/// without WebSocket does.
pub(super) async fn carry<S>(connection: &Connection, stream: S, unsent: LocalReceiver<Bytes>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let origins = &connection.streams.settings.origins;
    #[expect(
        clippy::result_large_err,
        reason = "the library's callback is of this shape"
    )]
    let answer = |request: &Request, response| answer(request, response, origins);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(MESSAGE_LEN_MAX))
        .max_frame_size(Some(MESSAGE_LEN_MAX));
    let handshake = accept_hdr_async_with_config(stream, answer, Some(config));
    let Some(socket) = connection.shake_hands("WebSocket", handshake).await else {
        return;
    };
    let (sender, receiver) = socket.split();
    let carry = or(
        read(connection, receiver),
        write(connection, sender, unsent),
    );
    or(carry, connection.until_needless()).await;
}

/// Refuses what is not SIP (400) and pages that are not wanted (403); names the subprotocol to others.
#[expect(
    clippy::result_large_err,
    reason = "the library's callback is of this shape"
)]
fn answer(
    request: &Request,
    mut response: Response,
    origins: &[String],
) -> Result<Response, ErrorResponse> {
    let refuse = |status: StatusCode, reason: &str| {
        let mut refusal = ErrorResponse::new(Some(reason.to_owned()));
        *refusal.status_mut() = status;
        Err(refusal)
    };
    let headers = request.headers();
    // Programs that are no browsers send none: what they say they are proves nothing.
    if let Some(origin) = headers.get(header::ORIGIN)
        && !origins.is_empty()
        && !origins.iter().any(|allowed| origin == allowed.as_str())
    {
        return refuse(StatusCode::FORBIDDEN, "this page may not call here");
    }
    let speaks_sip = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim() == SUBPROTOCOL);
    if !speaks_sip {
        return refuse(StatusCode::BAD_REQUEST, "the subprotocol is sip");
    }
    let name = HeaderValue::from_static(SUBPROTOCOL);
    response
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    Ok(response)
}

/// Pings are answered, and fragments joined, below this.
async fn read<S>(connection: &Connection, mut receiver: WebSocketReceiver<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = receiver.next().await {
        connection.heard();
        let bytes = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // After a close comes the end.
            _ => continue,
        };
        if !is_blank(&bytes) {
            connection.deliver(bytes).await;
        } else if bytes == b"\r\n\r\n"[..] {
            connection.streams.answer(connection.flow, PONG);
        }
    }
}

async fn write<S>(
    connection: &Connection,
    mut sender: WebSocketSender<S>,
    unsent: LocalReceiver<Bytes>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(bytes) = unsent.recv().await {
        let message = match Utf8Bytes::try_from(bytes.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(bytes.clone()),
        };
        let Some(Ok(())) = within(WRITE_TIMEOUT, sender.send(message)).await else {
            return;
        };
        connection.sent(&bytes);
    }
}

/// A keep-alive (RFC 5626 §4.4.1): line ends, and no message.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|octet| matches!(octet, b'\r' | b'\n'))
}
