//! Tokens that are to be believed, and all others.
#![allow(dead_code, reason = "the issuer is shared with the tests over sockets")]

#[path = "../../tests/access/issuer.rs"]
mod issuer;

use super::*;
use issuer::{Issuer as Told, Signer, claims, hmac, now_s};
use serde_json::json;

fn issuer(settings: &str) -> Arc<Issuer> {
    let config: OAuth2 = toml::from_str(&format!("resource_server_id = 'rabbitmq'\n{settings}")).unwrap();
    Arc::new(Issuer::read(&config).unwrap())
}

/// With these keys in a file.
fn with_file(keys: &[Value], settings: &str) -> Arc<Issuer> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    std::fs::write(&file, json!({"keys": keys}).to_string()).unwrap();
    issuer(&format!("jwks_file = '{}'\n{settings}", file.display()))
}

async fn judge(issuer: &Arc<Issuer>, token: &str) -> Result<User, String> {
    issuer.judge(token.as_bytes(), now_s()).await
}

#[tokio::test]
async fn each_algorithm_is_checked_with_its_key() {
    for algorithm in ["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS256"] {
        let signer = Signer::new("k", algorithm);
        let issuer = with_file(&[signer.jwk()], "");
        let token = signer.token(&claims("app", "rabbitmq.read:*/*"));
        assert_eq!(&*judge(&issuer, &token).await.unwrap().name, "app", "{algorithm}");
        let (signed, _) = token.rsplit_once('.').unwrap();
        let other = signer.token(&claims("administrator", "rabbitmq.tag:administrator"));
        let (_, signature) = other.rsplit_once('.').unwrap();
        let refused = judge(&issuer, &format!("{signed}.{signature}")).await.unwrap_err();
        assert_eq!(refused, "its signature is not its key's", "{algorithm}");
        for signature in ["", "AAAA"] {
            assert!(judge(&issuer, &format!("{signed}.{signature}")).await.is_err(), "{algorithm}");
        }
    }
}

#[tokio::test]
async fn an_algorithm_is_the_keys_to_say_not_the_tokens() {
    let rsa = Signer::new("k", "RS256");
    let issuer = with_file(&[rsa.jwk()], "");
    let body = claims("app", "rabbitmq.tag:administrator");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    // The public key taken for a shared secret, in each form that an attacker may guess.
    let jwk = rsa.jwk();
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [rsa.spki_octets(), modulus, jwk.to_string().into_bytes()] {
        let signed = format!("{}.{}", part(&json!({"alg": "HS256", "kid": "k"})), part(&body));
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac(&secret, &signed)));
        let refused = judge(&issuer, &token).await.unwrap_err();
        assert_eq!(refused, "its algorithm, \"HS256\", is not one that its key is for");
    }
    for (name, algorithm) in [("none", json!("none")), ("None", json!("None")), ("", json!(""))] {
        let token = format!("{}.{}.", part(&json!({"alg": algorithm, "kid": "k"})), part(&body));
        let refused = judge(&issuer, &token).await.unwrap_err();
        assert_eq!(refused, format!("its algorithm, {name:?}, is none that is taken"));
    }
    // A key of its own, in the header, as some libraries once took it.
    let own = Signer::new("k", "ES256");
    let token = own.signed(&json!({"alg": "ES256", "kid": "k", "jwk": own.jwk()}), &body);
    assert!(judge(&issuer, &token).await.unwrap_err().contains("is not one that its key is for"));
}

#[tokio::test]
async fn algorithms_may_be_fewer_and_a_key_may_be_for_one() {
    let signer = Signer::new("k", "PS256");
    let token = signer.token(&claims("app", ""));
    let only = with_file(&[signer.jwk()], "algorithms = ['RS256']");
    assert!(judge(&only, &token).await.unwrap_err().contains("is not one of oauth2.algorithms"));
    let mut jwk = signer.jwk();
    jwk["alg"] = json!("RS256");
    assert!(judge(&with_file(&[jwk], ""), &token).await.unwrap_err().contains("is not one that its key is for"));
}

#[tokio::test]
async fn what_is_no_token_is_refused_with_a_reason_that_does_not_repeat_it() {
    let signer = Signer::new("k", "ES256");
    let issuer = with_file(&[signer.jwk()], "");
    let good = signer.token(&claims("app", ""));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = signed.split_once('.').unwrap();
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let mut wrong: Vec<Vec<u8>> = [
        String::new(),
        "guest".into(),
        "..".into(),
        "a.b".into(),
        format!("{header}.{body}"),
        format!("{good}.{signature}"),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}.{body}+.{signature}"),
        format!("{}.{body}.{signature}", encoded("[]")),
        format!("{}.{body}.{signature}", encoded("{")),
        format!("{}.{body}.{signature}", encoded("{}")),
        format!("{}.{body}.{signature}", encoded("{\"alg\":1}")),
        format!("{}.{body}.{signature}", encoded("{\"alg\":\"ES256\",\"crit\":[\"b64\"],\"b64\":false}")),
        format!("{header}.{}.{signature}", encoded("\"app\"")),
        format!("{header}.{}.{signature}", "A".repeat(TOKEN_BYTES_MAX)),
        format!("{header}.{}.{signature}", encoded(&"[".repeat(5000))),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect();
    wrong.push([good.as_bytes(), &[0xff]].concat());
    for token in wrong {
        let refused = issuer.judge(&token, now_s()).await.unwrap_err();
        assert!(!refused.is_empty() && !refused.contains(signature), "{refused}");
    }
    assert!(judge(&issuer, &good).await.is_ok());
    assert!(looks_like_token(good.as_bytes()) && !looks_like_token(b"a.b.c") && !looks_like_token(b"s3cret"));
}

#[tokio::test]
async fn a_token_that_names_no_key_is_checked_with_the_only_one_or_the_default() {
    let (one, other) = (Signer::new("one", "ES256"), Signer::new("other", "ES256"));
    let token = one.signed(&json!({"alg": "ES256"}), &claims("app", ""));
    assert!(judge(&with_file(&[one.jwk()], ""), &token).await.is_ok());
    let both = [other.jwk(), one.jwk()];
    assert!(judge(&with_file(&both, ""), &token).await.unwrap_err().contains("set oauth2.default_key"));
    assert!(judge(&with_file(&both, "default_key = 'one'"), &token).await.is_ok());
    let unknown = one.signed(&json!({"alg": "ES256", "kid": "third"}), &claims("app", ""));
    assert_eq!(judge(&with_file(&both, ""), &unknown).await.unwrap_err(), "nobody knows its key, \"third\"");
}

#[tokio::test]
async fn a_shared_secret_is_never_taken_from_an_address() {
    let secret = Signer::new("k", "HS256");
    let told = Told::open(vec![secret.jwk(), Signer::new("e", "ES256").jwk()]).await;
    let issuer = issuer(&format!("jwks_url = '{}'", told.url()));
    let refused = judge(&issuer, &secret.token(&claims("app", ""))).await.unwrap_err();
    assert_eq!(refused, "nobody knows its key, \"k\"");
}

#[tokio::test]
async fn keys_are_asked_for_when_a_new_one_is_named_and_stay_while_nobody_answers() {
    let (old, new) = (Signer::new("old", "ES256"), Signer::new("new", "EdDSA"));
    let told = Told::open(vec![old.jwk()]).await;
    let issuer = issuer(&format!("jwks_url = '{}'\njwks_cooldown_ms = 0", told.url()));
    let token = |signer: &Signer| signer.token(&claims("app", ""));
    judge(&issuer, &token(&old)).await.unwrap();
    judge(&issuer, &token(&old)).await.unwrap();
    assert_eq!(told.asked(), 1, "what is known is not asked for");
    told.tell(Some(vec![old.jwk(), new.jwk()]));
    judge(&issuer, &token(&new)).await.unwrap();
    assert_eq!(told.asked(), 2);
    told.tell(None);
    assert!(judge(&issuer, &token(&Signer::new("third", "ES256"))).await.is_err());
    assert_eq!(told.asked(), 3);
    judge(&issuer, &token(&old)).await.unwrap();
    // Another issuer of the same place takes over what this one knows.
    let next = Arc::new(Issuer::read(&issuer.config).unwrap());
    next.inherit(&issuer);
    judge(&next, &token(&new)).await.unwrap();
    told.tell(Some(vec![new.jwk()]));
    assert!(judge(&issuer, &token(&Signer::new("fourth", "ES256"))).await.is_err());
    assert!(judge(&issuer, &token(&old)).await.is_err(), "a key that was taken back is gone with the next answer");
}

#[tokio::test]
async fn whoever_names_keys_that_there_are_not_makes_nobody_ask_all_the_time() {
    let told = Told::open(vec![Signer::new("k", "ES256").jwk()]).await;
    let issuer = issuer(&format!("jwks_url = '{}'", told.url()));
    let forger = Signer::new("no", "ES256");
    let attempts = (0..20).map(|_| {
        let (issuer, token) = (Arc::clone(&issuer), forger.token(&claims("app", "")));
        tokio::spawn(async move { judge(&issuer, &token).await })
    });
    for attempt in attempts.collect::<Vec<_>>() {
        assert!(attempt.await.unwrap().is_err());
    }
    assert_eq!(told.asked(), 1);
}

#[tokio::test]
async fn an_issuer_tells_where_its_keys_are_unless_anybody_could_answer_there() {
    let signer = Signer::new("k", "ES256");
    let told = Told::open(vec![signer.jwk()]).await;
    let found = issuer(&format!("issuer = 'http://{}/realms/jobs'", told.address));
    judge(&found, &signer.token(&claims("app", ""))).await.unwrap();
    assert_eq!(*told.asked.lock().unwrap(), ["/realms/jobs/.well-known/openid-configuration", "/keys"]);
    for (url, is_good) in [
        ("https://issuer.example/keys", true),
        ("http://localhost:8080/keys", true),
        ("http://[::1]:8080/keys", true),
        ("http://issuer.example/keys", false),
        ("http://localhost.example/keys", false),
        ("ftp://localhost/keys", false),
        ("/keys", false),
        ("", false),
    ] {
        assert_eq!(OAuth2::check_url(url).is_ok(), is_good, "{url}");
    }
}

#[tokio::test]
async fn an_issuer_is_believed_over_https_if_its_certificate_is_from_the_named_authority_and_for_its_name() {
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&pair).unwrap();
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let signer = Signer::new("k", "ES256");
    let body = json!({"keys": [signer.jwk()]}).to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _gone = socket.write_all(format!("{head}{body}").as_bytes()).await;
            let _gone = socket.shutdown().await;
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certificate.pem()).unwrap();
    let token = signer.token(&claims("app", ""));
    let named = format!("ca = '{}'", ca.display());
    for (host, ca, is_believed) in
        [("localhost", named.as_str(), true), ("127.0.0.1", &named, false), ("localhost", "", false)]
    {
        let issuer = issuer(&format!("jwks_url = 'https://{host}:{port}/keys'\n{ca}"));
        assert_eq!(judge(&issuer, &token).await.is_ok(), is_believed, "{host} {ca}");
    }
}

#[tokio::test]
async fn a_key_may_be_a_file_of_pem() {
    let directory = tempfile::tempdir().unwrap();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["issuer".into()]).unwrap().self_signed(&pair).unwrap();
        let of_key = Key::from_pem("k", pair.public_key_pem().as_bytes()).unwrap();
        assert!(of_key == Key::from_pem("k", certificate.pem().as_bytes()).unwrap(), "it is the same key");
    }
    let rsa = x509_key(&Signer::new("k", "RS256"));
    let file = directory.path().join("key.pem");
    std::fs::write(&file, &rsa).unwrap();
    let issuer = issuer(&format!("[signing_keys]\nk = '{}'", file.display()));
    judge(&issuer, &Signer::new("k", "RS256").token(&claims("app", ""))).await.unwrap();
    for wrong in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        std::fs::write(&file, wrong).unwrap();
        let config: OAuth2 = toml::from_str(&format!("[signing_keys]\nk = '{}'", file.display())).unwrap();
        let refused = Issuer::read(&config).unwrap_err().to_string();
        assert!(refused.contains("key.pem"), "{refused}");
    }
}

/// The public key of RSA as PEM.
fn x509_key(signer: &Signer) -> String {
    use base64::engine::general_purpose::STANDARD;
    let key = signer.spki_octets();
    let long = |length: usize| vec![0x82, u8::try_from(length >> 8).unwrap(), (length & 0xff) as u8];
    let algorithm = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits = [vec![0x03], long(key.len() + 1), vec![0], key].concat();
    let der = [vec![0x30], long(algorithm.len() + bits.len()), algorithm.to_vec(), bits].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}
