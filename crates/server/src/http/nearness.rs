//! Which requests come from this machine and speak for nobody elsewhere: what users may need who may log in from here only.
//!
//! Any page may have a name that leads to 127.0.0.1, and then a browser takes this server for the page's own and lets the
//! page ask whatever it likes, from this machine (DNS rebinding). What gives it away is the name: browsers say what they
//! asked for, and a stranger's name is not one that this machine has.

use crate::config::Config;
use crate::footprint;
use axum::http::{HeaderMap, HeaderValue, header};
use std::net::{IpAddr, Ipv4Addr};

/// Whether a request from this address is from here.
pub(super) fn is_local(peer: IpAddr, headers: &HeaderMap, config: &Config) -> bool {
    peer.is_loopback() && is_asked_by_own_name(headers, config)
}

/// Whether the request is for an address, or for a name that this machine has or that the configuration lets pages come
/// from. Programs that name no host are no browsers.
pub(super) fn is_asked_by_own_name(headers: &HeaderMap, config: &Config) -> bool {
    let is_own = |host: &HeaderValue| host.to_str().is_ok_and(|host| is_own(host, config));
    headers.get_all(header::HOST).into_iter().all(is_own)
}

fn is_own(host: &str, config: &Config) -> bool {
    // Only an address has brackets, and no name ends in a number.
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
    let machine = footprint::host_name().to_ascii_lowercase();
    let is_machine = !name.is_empty() && (name == machine || machine.split('.').next() == Some(&name));
    let is_allowed = |origin: &String| {
        let page = origin.split_once("://").map(|(_, page)| without_port(page));
        origin == "*" || page.is_some_and(|page| page.eq_ignore_ascii_case(&name))
    };
    is_address
        || name == "localhost"
        || name.ends_with(".localhost")
        || is_machine
        || config.cors_allow_origins.iter().any(is_allowed)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn config(origins: &[&str]) -> Config {
        let origins = Some(origins.iter().map(|origin| (*origin).to_owned()).collect());
        Config::new(&[Settings { cors_allow_origins: origins, ..Settings::default() }]).unwrap()
    }

    #[test]
    fn addresses_and_own_names_are_near_and_a_strangers_name_is_not() {
        let here = footprint::host_name();
        let config = config(&["http://queue.test:15672"]);
        for host in [
            "localhost",
            "LOCALHOST:15672",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1",
            "127.0.0.1:15672",
            "[::1]",
            "[::1]:15672",
            "192.0.2.1:80",
            &here,
            &format!("{here}:15672"),
            "queue.test",
            "queue.test:1",
        ] {
            assert!(is_own(host, &config), "{host}");
        }
        for host in [
            "",
            ":15672",
            "evil.test",
            "evil.test:15672",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "notlocalhost",
            "127.1.evil",
            "x.queue.test",
            "::1.evil.test",
        ] {
            assert!(!is_own(host, &config), "{host}");
        }
    }

    #[test]
    fn who_lets_in_all_pages_lets_in_all_names() {
        assert!(is_own("evil.test", &config(&["*"])));
    }

    #[test]
    fn each_name_that_is_said_counts_and_none_need_be() {
        let (loopback, config) = ([127, 0, 0, 1].into(), config(&[]));
        let mut headers = HeaderMap::new();
        assert!(is_local(loopback, &headers, &config));
        assert!(!is_local([192, 0, 2, 1].into(), &headers, &config));
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(is_local(loopback, &headers, &config));
        headers.append(header::HOST, HeaderValue::from_static("evil.test"));
        assert!(!is_local(loopback, &headers, &config));
    }
}
