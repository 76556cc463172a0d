//! Certificates for tests, as files that go when they are dropped.

#![allow(unreachable_pub, reason = "shared by test files")]

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::scratch;

/// Who signs certificates for this machine's loopback.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, for those who are to trust it.
    pub pem: PathBuf,
    label: String,
}

/// A certificate and its private key.
pub struct Certificate {
    pub pem: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(label: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = scratch(&format!("{label}-ca.pem"));
        std::fs::write(&pem, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            pem,
            label: label.to_owned(),
        }
    }

    pub fn sign(&self, name: &str) -> Certificate {
        let path = |kind: &str| scratch(&format!("{}-{name}-{kind}.pem", self.label));
        let certificate = Certificate {
            pem: path("certificate"),
            key: path("key"),
        };
        self.sign_into(&certificate);
        certificate
    }

    /// A new certificate in the files of an old one.
    pub fn sign_into(&self, certificate: &Certificate) {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&certificate.pem, signed.pem()).unwrap();
        std::fs::write(&certificate.key, key.serialize_pem()).unwrap();
    }
}

impl Certificate {
    /// As `--set` overrides.
    pub fn sets(&self) -> [String; 2] {
        [
            format!("sip.tls.certificate={}", self.pem.display()),
            format!("sip.tls.key={}", self.key.display()),
        ]
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        remove(&self.pem);
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        remove(&self.pem);
        remove(&self.key);
    }
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}
