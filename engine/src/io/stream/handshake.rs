//! TLS on connections of a shard.

use std::io;

use futures_rustls::{LazyConfigAcceptor, TlsConnector, client, server};
use glommio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;

use super::Streams;

/// Answers a handshake. What is slow to arrive is waited for first; what is slow to compute, the answer,
/// takes its turn.
pub(super) async fn accept(
    streams: &Streams,
    stream: TcpStream,
) -> io::Result<server::TlsStream<TcpStream>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    streams.handshake_turn().await;
    // None if a reload took the certificate away.
    let config = streams.settings.tls.server();
    let config = config.ok_or_else(|| io::Error::other("there is no certificate"))?;
    hello.into_stream(config).await
}

/// Begins a handshake; the peer must show a certificate for `name`.
pub(super) async fn connect(
    streams: &Streams,
    name: ServerName<'static>,
    stream: TcpStream,
) -> io::Result<client::TlsStream<TcpStream>> {
    streams.handshake_turn().await;
    let connector = TlsConnector::from(streams.settings.tls.client());
    connector.connect(name, stream).await
}
