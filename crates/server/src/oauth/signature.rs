//! JSON Web Keys, and whether one of them signed a token. ring computes, as it does for TLS.
//!
//! An algorithm is never taken because a token names it: the key says which ones fit it, and a key that was made to check
//! signatures is never a shared secret. `none` is no algorithm.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use ring::hmac;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::{Map, Value};
use std::fmt;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// How a token can be signed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Algorithm {
    Rsa(&'static RsaParameters),
    Ecdsa(Curve),
    Ed25519,
    Hmac(hmac::Algorithm),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Algorithm {
    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::Ecdsa(Curve::P256),
            "ES384" => Self::Ecdsa(Curve::P384),
            "EdDSA" | "Ed25519" => Self::Ed25519,
            "HS256" => Self::Hmac(hmac::HMAC_SHA256),
            "HS384" => Self::Hmac(hmac::HMAC_SHA384),
            "HS512" => Self::Hmac(hmac::HMAC_SHA512),
            _ => return None,
        })
    }
}

/// A key that tokens are checked with. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// What tokens call it.
    pub(crate) id: Option<String>,
    /// The only algorithm that it is for, if it says one.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    Ec(Curve, Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.id)
    }
}

impl Key {
    /// Reads a JSON Web Key. `None` for what is no key to check signatures with, or of a kind that is not known; shared
    /// secrets only if they are from a place where nobody else reads them.
    pub(crate) fn from_jwk(jwk: &Map<String, Value>, may_be_secret: bool) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let octets = |name: &str| BASE64_URL.decode(text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa { n: without_zeros(octets("n")?), e: without_zeros(octets("e")?) },
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let (curve, bytes) = if curve == "P-256" { (Curve::P256, 32) } else { (Curve::P384, 48) };
                let (x, y) = (octets("x")?, octets("y")?);
                if x.len() != bytes || y.len() != bytes {
                    return None;
                }
                Material::Ec(curve, [&[4][..], &x, &y].concat())
            }
            ("OKP", Some("Ed25519")) => Material::Ed25519(octets("x").filter(|x| x.len() == 32)?),
            ("oct", _) if may_be_secret => Material::Secret(octets("k").filter(|secret| !secret.is_empty())?),
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), material })
    }

    /// Reads a file of PEM: a public key or a certificate.
    pub(crate) fn from_pem(id: &str, pem: &[u8]) -> Result<Self, String> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem).map(|key| key.to_vec()).or_else(|_| {
            let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| {
                "it holds neither a public key (-----BEGIN PUBLIC KEY-----) nor a certificate in PEM".to_owned()
            })?;
            let certificate = x509_cert::Certificate::from_der(&certificate).map_err(|why| why.to_string())?;
            certificate.tbs_certificate.subject_public_key_info.to_der().map_err(|why| why.to_string())
        })?;
        let material = Material::from_der(&key).ok_or("its key is none of RSA, P-256, P-384 and Ed25519")?;
        Ok(Self { id: Some(id.to_owned()), algorithm: None, material })
    }

    /// Whether the signature is this key's, by an algorithm of this name.
    ///
    /// # Errors
    /// Why not, for the log.
    pub(crate) fn check(&self, name: &str, signed: &[u8], signature: &[u8]) -> Result<(), String> {
        let unfit = || format!("its algorithm, {name:?}, is not one that its key is for");
        if self.algorithm.as_ref().is_some_and(|only| only != name) {
            return Err(unfit());
        }
        let with = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(signed, signature)
        };
        let checked = match (Algorithm::named(name), &self.material) {
            (Some(Algorithm::Rsa(parameters)), Material::Rsa { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature)
            }
            (Some(Algorithm::Ecdsa(Curve::P256)), Material::Ec(Curve::P256, point)) => {
                with(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            (Some(Algorithm::Ecdsa(Curve::P384)), Material::Ec(Curve::P384, point)) => {
                with(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            (Some(Algorithm::Ed25519), Material::Ed25519(key)) => with(&signature::ED25519, key),
            (Some(Algorithm::Hmac(algorithm)), Material::Secret(secret)) => {
                hmac::verify(&hmac::Key::new(algorithm, secret), signed, signature)
            }
            _ => return Err(unfit()),
        };
        checked.map_err(|_| "its signature is not its key's".to_owned())
    }
}

impl Material {
    fn from_der(key: &[u8]) -> Option<Self> {
        let info = SubjectPublicKeyInfoRef::from_der(key).ok()?;
        let octets = info.subject_public_key.as_bytes()?;
        let curve = || info.algorithm.parameters_oid().ok();
        Some(match info.algorithm.oid {
            RSA => {
                let mut reader = SliceReader::new(octets).ok()?;
                let numbers =
                    reader.sequence(|inner| Ok((inner.decode::<UintRef<'_>>()?, inner.decode::<UintRef<'_>>()?)));
                let (n, e) = numbers.ok()?;
                Self::Rsa { n: n.as_bytes().to_vec(), e: e.as_bytes().to_vec() }
            }
            EC if curve() == Some(P256) => Self::Ec(Curve::P256, octets.to_vec()),
            EC if curve() == Some(P384) => Self::Ec(Curve::P384, octets.to_vec()),
            ED25519 => Self::Ed25519(octets.to_vec()),
            _ => return None,
        })
    }
}

/// ring wants numbers without zeros in front, which some issuers write.
fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|octet| *octet == 0).collect()
}

/// Issuers pad their keys or not.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
