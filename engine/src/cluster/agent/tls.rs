//! Control channels with TLS: both sides show a certificate, and know the other's by the fingerprint in its
//! SDP (RFC 8122), whoever signed it.
//!
//! The fingerprint is compared by the hub once the handshake is over and it knows whose connection it is:
//! before that nothing of the peer's is believed, and nothing is sent.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::cluster::hub::Fingerprint;
use crate::config::{CertificateFiles, ConfigError};
use crate::io::tls;

/// What channels of this server are made of.
#[derive(Clone)]
pub struct TlsIdentity {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    own: Fingerprint,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads the files; what is in them counts until the server ends.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn load(files: &CertificateFiles) -> Result<Self, ConfigError> {
        let (chain, key) = tls::read(files)?;
        let own = fingerprint(&chain[0]);
        let provider = tls::provider();
        let anybody = Arc::new(Anybody {
            algorithms: provider.signature_verification_algorithms,
        });
        let wrong = |error: Error| ConfigError::new("sip.tls.certificate", error.to_string());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_client_cert_verifier(anybody.clone())
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(wrong)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(anybody)
            .with_client_auth_cert(chain, key)
            .map_err(wrong)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            own,
        })
    }

    /// For our SDP.
    pub fn fingerprint(&self) -> cfw::sdp::Fingerprint {
        cfw::sdp::Fingerprint {
            hash: "sha-256".to_owned(),
            bytes: self.own.to_vec(),
        }
    }

    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(server::TlsStream<TcpStream>, Fingerprint)> {
        let stream = self.acceptor.accept(stream).await?;
        let shown = shown(stream.get_ref().1.peer_certificates())?;
        Ok((stream, shown))
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<(client::TlsStream<TcpStream>, Fingerprint)> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = self.connector.connect(name, stream).await?;
        let shown = shown(stream.get_ref().1.peer_certificates())?;
        Ok((stream, shown))
    }
}

fn shown(certificates: Option<&[CertificateDer<'_>]>) -> io::Result<Fingerprint> {
    let own = certificates.and_then(<[_]>::first);
    own.map(fingerprint)
        .ok_or_else(|| io::Error::other("no certificate"))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Sha256::digest(certificate).into()
}

/// Takes any certificate whose key the other side has.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Anybody {
    fn schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
