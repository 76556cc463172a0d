//! The hashes of RFC 7616 §3.4, all over parts joined by colons.

use md5::Md5;
use sha2::{Digest, Sha256};

use super::header::{Protection, Qop};
use super::{Algorithm, Request};

/// A hash, of 32 or 16 octets.
#[derive(Clone, Copy)]
pub(super) enum Hash {
    Sha256([u8; 32]),
    Md5([u8; 16]),
}

impl Hash {
    /// Of the parts with a colon between each two.
    fn of(algorithm: Algorithm, parts: &[&[u8]]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(joined::<Sha256>(parts).finalize().into()),
            Algorithm::Md5 => Self::Md5(joined::<Md5>(parts).finalize().into()),
        }
    }

    pub(super) fn octets(&self) -> &[u8] {
        match self {
            Self::Sha256(octets) => octets,
            Self::Md5(octets) => octets,
        }
    }

    /// Lower case, as it is hashed again and sent.
    pub(super) fn hex(&self) -> String {
        hex(self.octets())
    }
}

fn joined<D: Digest>(parts: &[&[u8]]) -> D {
    let mut state = D::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            state.update(b":");
        }
        state.update(part);
    }
    state
}

/// H(A1).
pub(super) fn ha1(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> Hash {
    let parts = [username, realm, password].map(str::as_bytes);
    Hash::of(algorithm, &parts)
}

/// The `response` of credentials; without protection in the form of RFC 2069.
pub(super) fn response(
    algorithm: Algorithm,
    ha1: &Hash,
    nonce: &str,
    protection: Option<&Protection<'_>>,
    request: &Request<'_>,
) -> Hash {
    let (method, uri) = (request.method.as_bytes(), request.uri.as_bytes());
    let protects_body = protection.is_some_and(|protection| protection.qop == Qop::AuthInt);
    let ha2 = if protects_body {
        let body = Hash::of(algorithm, &[request.body]).hex();
        Hash::of(algorithm, &[method, uri, body.as_bytes()])
    } else {
        Hash::of(algorithm, &[method, uri])
    };
    let (ha1, ha2) = (ha1.hex(), ha2.hex());
    let (ha1, ha2) = (ha1.as_bytes(), ha2.as_bytes());
    let nonce = nonce.as_bytes();
    match protection {
        None => Hash::of(algorithm, &[ha1, nonce, ha2]),
        Some(protection) => {
            let count = protection.nonce_count.as_bytes();
            let client_nonce = protection.client_nonce.as_bytes();
            let qop = protection.qop.name().as_bytes();
            Hash::of(algorithm, &[ha1, nonce, count, client_nonce, qop, ha2])
        }
    }
}

pub(super) fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    octets
        .iter()
        .flat_map(|octet| [octet >> 4, octet & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// A hash from hexadecimal digits of either case; None unless they are exactly `N` octets.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let mut octets = [0; N];
    for (octet, [high, low]) in octets.iter_mut().zip(pairs) {
        // Two digits of four bits: it fits.
        *octet = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(octets)
}
