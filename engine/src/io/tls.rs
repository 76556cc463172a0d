//! Certificates and keys: from PEM files to what TLS connections are made of.
//!
//! All shards share one [`Tls`]. SIGHUP replaces its content as a whole, so a connection sees either
//! the old files or the new ones, never a mixture.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::{CertificateFiles, ConfigError, TlsConfig};

/// What TLS connections of the server are made of, in both directions.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<Current>,
}

/// What counts until the next reload.
#[derive(Debug)]
struct Current {
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
    /// Who connects to us has shown a certificate that we trust.
    callers_are_known: bool,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// The key of the first file that cannot be used.
    pub fn load(config: &TlsConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            current: ArcSwap::from_pointee(Current::load(config)?),
        })
    }

    /// Reads the files again, for connections made from now on.
    ///
    /// # Errors
    /// As of [`load`](Self::load); then all stays as it was.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), ConfigError> {
        self.current.store(Arc::new(Current::load(config)?));
        Ok(())
    }

    /// For connections that others make; None when there is no certificate.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.current.load().server.clone()
    }

    /// For connections that we make.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current.load().client.clone()
    }

    /// Whether those who connect to us must show a certificate.
    pub fn callers_are_known(&self) -> bool {
        self.current.load().callers_are_known
    }
}

impl Current {
    fn load(config: &TlsConfig) -> Result<Self, ConfigError> {
        let server = config
            .certificate
            .as_ref()
            .map(|files| server(files, config.client_ca.as_deref()))
            .transpose()?;
        let client = client(config.ca.as_deref(), config.certificate.as_ref())?;
        Ok(Self {
            server: server.map(Arc::new),
            client: Arc::new(client),
            callers_are_known: config.client_ca.is_some(),
        })
    }
}

fn server(files: &CertificateFiles, client_ca: Option<&Path>) -> Result<ServerConfig, ConfigError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("sip.tls.certificate", &files.chain, &error))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |error: &dyn Display| unusable("sip.tls.client_ca", path, error);
            let roots = Arc::new(roots(path).map_err(|error| wrong(&error))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(&error))?)
        }
    };
    let (chain, key) = read(files)?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| mismatch(files, &error))?;
    // Connections live for hours: resuming saves nothing, and its store would be a lock between shards.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For connections that we make: they trust the authorities in `ca`, or those of the system, and show
/// `own` to peers who ask for a certificate.
///
/// # Errors
/// A file cannot be used.
pub fn client(
    ca: Option<&Path>,
    own: Option<&CertificateFiles>,
) -> Result<ClientConfig, ConfigError> {
    let roots = match ca {
        Some(path) => roots(path).map_err(|error| unusable("sip.tls.ca", path, &error))?,
        None => {
            let mut roots = RootCertStore::empty();
            // A system without authorities trusts nobody; who connects from there is told so then.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new("sip.tls.ca", error.to_string()))?
        .with_root_certificates(roots);
    match own {
        None => Ok(builder.with_no_client_auth()),
        Some(files) => {
            let (chain, key) = read(files)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| mismatch(files, &error))
        }
    }
}

/// The certificates in a PEM file, at least one.
fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| error.to_string())?
        .collect();
    match all {
        Ok(all) if all.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}

/// The certificates, the server's own first, and the key.
///
/// # Errors
/// A file cannot be used.
pub fn read(
    files: &CertificateFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
    let chain = certificates(&files.chain)
        .map_err(|error| unusable("sip.tls.certificate", &files.chain, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unusable("sip.tls.key", &files.key, &error))?;
    Ok((chain, key))
}

/// Certificate and key are read, but do not fit.
fn mismatch(files: &CertificateFiles, error: &rustls::Error) -> ConfigError {
    let of = format!("with {}", files.chain.display());
    unusable("sip.tls.key", &files.key, &format!("{of}: {error}"))
}

fn unusable(key: &str, path: &Path, error: &dyn Display) -> ConfigError {
    ConfigError::new(key, format!("{}: {error}", path.display()))
}

/// The cryptography of every TLS connection.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
