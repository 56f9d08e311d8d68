//! Hashes of passwords: RabbitMQ's, which are imported, and Argon2id, which is what new passwords get.
//!
//! Both take their time on purpose: never call these on a task that serves somebody.

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Argon2, Params, PasswordHash as Phc};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::identity::{HashAlgorithm, PasswordHash};
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

/// Hashes a new password.
///
/// # Errors
/// The system gives no random bytes.
pub(crate) fn hashed(password: &[u8]) -> Result<PasswordHash, getrandom::Error> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    let salt = SaltString::encode_b64(&salt).expect("sixteen bytes are a salt");
    let hash = Argon2::default().hash_password(password, &salt).expect("the default parameters are sound");
    Ok(PasswordHash { algorithm: HashAlgorithm::Argon2id, text: hash.to_string() })
}

/// Hashes as RabbitMQ does, for its users.
///
/// # Errors
/// The system gives no random bytes.
pub(crate) fn hashed_for_rabbitmq(password: &[u8]) -> Result<String, getrandom::Error> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)?;
    let digest = digest::<Sha256>(&salt, password);
    Ok(STANDARD.encode([&salt[..], &digest].concat()))
}

/// A hash as the API and definitions have it: in Base64 whatever it is, since RabbitMQ loads no file with another.
pub(crate) fn shown(hash: &PasswordHash) -> String {
    match hash.algorithm {
        HashAlgorithm::Argon2id => STANDARD.encode(&hash.text),
        HashAlgorithm::Sha256 | HashAlgorithm::Sha512 | HashAlgorithm::Md5 => hash.text.clone(),
    }
}

/// What [`shown`] made of a hash, or the hash itself, as it is kept.
pub(crate) fn read(algorithm: HashAlgorithm, text: &str) -> String {
    let decoded = || String::from_utf8(STANDARD.decode(text).ok()?).ok();
    match algorithm {
        HashAlgorithm::Argon2id if !text.starts_with('$') => decoded().unwrap_or_default(),
        _ => text.to_owned(),
    }
}

/// Whether a hash is one that a password can be checked with, and at a bounded price: one that names gigabytes of memory
/// would end the server when its user logs in.
pub(crate) fn is_sound(hash: &PasswordHash) -> bool {
    match hash.algorithm {
        HashAlgorithm::Argon2id => argon2id(&hash.text).is_some(),
        HashAlgorithm::Sha256 | HashAlgorithm::Sha512 | HashAlgorithm::Md5 => {
            STANDARD.decode(&hash.text).is_ok_and(|bytes| bytes.len() > SALT_BYTES)
        }
    }
}

/// Whether this is the password.
pub(crate) fn is_right(hash: &PasswordHash, password: &[u8]) -> bool {
    let computed: fn(&[u8], &[u8]) -> Vec<u8> = match hash.algorithm {
        HashAlgorithm::Argon2id => {
            let phc = argon2id(&hash.text);
            return phc.is_some_and(|phc| Argon2::default().verify_password(password, &phc).is_ok());
        }
        HashAlgorithm::Sha256 => digest::<Sha256>,
        HashAlgorithm::Sha512 => digest::<Sha512>,
        HashAlgorithm::Md5 => digest::<Md5>,
    };
    let Ok(bytes) = STANDARD.decode(&hash.text) else { return false };
    let Some((salt, expected)) = bytes.split_at_checked(SALT_BYTES) else { return false };
    computed(salt, password).ct_eq(expected).into()
}

fn argon2id(text: &str) -> Option<Phc<'_>> {
    let phc = Phc::new(text).ok().filter(|phc| phc.algorithm.as_str() == "argon2id")?;
    let params = Params::try_from(&phc).ok()?;
    let is_affordable = params.m_cost() <= MEMORY_KIB_MAX && params.t_cost() <= PASSES_MAX;
    (is_affordable && params.p_cost() <= LANES_MAX).then_some(phc)
}

/// Whether a wrong password is found out sooner than one of ours, which is what [`waste_time`] takes.
pub(crate) fn is_cheap(hash: &PasswordHash) -> bool {
    hash.algorithm != HashAlgorithm::Argon2id
}

/// Takes as long as a wrong password of a user does, where there is no user.
pub(crate) fn waste_time(password: &[u8]) {
    let hash = PasswordHash { algorithm: HashAlgorithm::Argon2id, text: NOBODYS.to_owned() };
    let _never = is_right(&hash, password);
}

fn digest<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
    D::new().chain_update(salt).chain_update(password).finalize().to_vec()
}

/// What hashes from elsewhere may cost to check: several are checked at once.
const MEMORY_KIB_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 32;
const LANES_MAX: u32 = 16;

/// Of RabbitMQ's salts.
const SALT_BYTES: usize = 4;

/// A hash with our parameters.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_is_shown_is_read_again_and_is_base64() {
        let hash = hashed(b"x").unwrap();
        let shown = shown(&hash);
        assert!(STANDARD.decode(&shown).is_ok());
        assert_eq!(read(HashAlgorithm::Argon2id, &shown), hash.text);
        assert_eq!(read(HashAlgorithm::Argon2id, &hash.text), hash.text, "as it was shown before");
        assert_eq!(read(HashAlgorithm::Argon2id, "%"), "");
        assert_eq!(read(HashAlgorithm::Sha256, "AAAA"), "AAAA");
    }

    #[test]
    fn a_new_password_is_right_and_no_other() {
        let hash = hashed(b"correct horse").unwrap();
        assert!(hash.text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.text);
        assert!(is_sound(&hash));
        assert!(is_right(&hash, b"correct horse") && !is_right(&hash, b"correct hors"));
        assert!(!format!("{hash:?}").contains("argon2id$"), "a hash is not shown");
    }

    #[test]
    fn hashes_of_rabbitmq_are_understood() {
        for (algorithm, text) in [
            (HashAlgorithm::Sha256, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"),
            (HashAlgorithm::Sha512, SHA512),
            (HashAlgorithm::Md5, MD5),
        ] {
            let hash = PasswordHash { algorithm, text: text.to_owned() };
            assert!(is_sound(&hash), "{algorithm:?}");
            assert!(is_right(&hash, b"test12"), "{algorithm:?}");
            assert!(!is_right(&hash, b"test1") && !is_right(&hash, b""), "{algorithm:?}");
        }
        let ours = hashed_for_rabbitmq(b"x").unwrap();
        assert!(is_right(&PasswordHash { algorithm: HashAlgorithm::Sha256, text: ours }, b"x"));
    }

    #[test]
    fn a_hash_that_nobody_can_afford_to_check_is_none() {
        let hash = |costs: &str| {
            let text =
                format!("$argon2id$v=19${costs}$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
            PasswordHash { algorithm: HashAlgorithm::Argon2id, text }
        };
        assert!(is_sound(&hash("m=262144,t=3,p=4")));
        for costs in ["m=4294967295,t=2,p=1", "m=262145,t=2,p=1", "m=19456,t=4294967295,p=1", "m=19456,t=2,p=17"] {
            assert!(!is_sound(&hash(costs)) && !is_right(&hash(costs), b"x"), "{costs}");
        }
    }

    #[test]
    fn what_is_no_hash_fits_no_password() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Md5, HashAlgorithm::Argon2id] {
            for text in ["", "AAAA", "not base64", "$argon2id$", "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAA"] {
                let hash = PasswordHash { algorithm, text: text.to_owned() };
                assert!(!is_right(&hash, b"") && !is_right(&hash, b"x"), "{algorithm:?} {text}");
                assert!(!is_sound(&hash), "{algorithm:?} {text}");
            }
        }
    }

    const SHA512: &str = "kI3GChuNuIYf8lRbCCxZjgjKwsY19ns6+uFO0zcXRBGA/XGJPYD8OWMy7EB8TaOmAzjP2azv84GbINYwX2cDWb4DHnc=";
    const MD5: &str = "kI3GChNpte2FApYFXScl+0dIluk=";
}
