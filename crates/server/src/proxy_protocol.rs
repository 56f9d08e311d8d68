//! The PROXY protocol, versions 1 and 2: what a load balancer says of a client before the client's own bytes.
//!
//! A connection that is to begin with it and does not is refused: whoever can connect could otherwise claim to come from
//! anywhere, or a forgotten setting would show every client as the load balancer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Both ends as the load balancer saw them: the client's and its own. `None`: it speaks for itself (a health check), or
/// does not know.
pub(crate) type Ends = Option<(SocketAddr, SocketAddr)>;

/// Why a connection's beginning is no such header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("its connection ended within the PROXY header: {0}")]
    Ended(#[from] io::Error),
    #[error("{0}; it must begin with a PROXY header, since proxy_protocol is on")]
    Malformed(&'static str),
}

/// Takes the header off a connection, and nothing behind it.
pub(crate) async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Result<Ends, HeaderError> {
    let mut start = [0; 12];
    // AMQP's own header is shorter: who begins with that would wait for an answer, and we for the rest.
    socket.read_exact(&mut start[..1]).await?;
    if ![b'P', SIGNATURE[0]].contains(&start[0]) {
        return Err(HeaderError::Malformed("it does not begin with PROXY or version 2's signature"));
    }
    socket.read_exact(&mut start[1..]).await?;
    if start == SIGNATURE {
        return read_binary(socket).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(HeaderError::Malformed("it does not begin with PROXY or version 2's signature"));
    }
    // The line's end is not known before it comes, and what is behind it is not ours: a byte at a time.
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_MAX {
            return Err(HeaderError::Malformed("the PROXY line does not end within 107 bytes"));
        }
        line.push(socket.read_u8().await?);
    }
    let text = std::str::from_utf8(&line[..line.len() - 2]).ok();
    text.and_then(parse_line).ok_or(HeaderError::Malformed("the PROXY line makes no sense"))
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 5000 5672`
fn parse_line(line: &str) -> Option<Ends> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let mut address = || words.next()?.parse::<IpAddr>().ok();
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        word.bytes().all(|octet| octet.is_ascii_digit()).then_some(word)?.parse::<u16>().ok()
    };
    let (source_port, destination_port) = (port()?, port()?);
    let is_v4 = match family {
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let fits = source.is_ipv4() == is_v4 && destination.is_ipv4() == is_v4 && words.next().is_none();
    fits.then_some(Some(((source, source_port).into(), (destination, destination_port).into())))
}

async fn read_binary(socket: &mut (impl AsyncRead + Unpin)) -> Result<Ends, HeaderError> {
    let (version_command, family) = (socket.read_u8().await?, socket.read_u8().await?);
    let length = usize::from(socket.read_u16().await?);
    if length > BINARY_MAX {
        return Err(HeaderError::Malformed("the PROXY header is longer than 4096 bytes"));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    match (version_command, family) {
        // LOCAL: whatever follows is to be ignored.
        (0x20, _) => Ok(None),
        (0x21, 0x11) => match body.first_chunk::<12>() {
            Some(&[a, b, c, d, e, f, g, h, ref ports @ ..]) => {
                let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
                let [from, to] = ports_of(*ports);
                Ok(Some(((source, from).into(), (destination, to).into())))
            }
            None => Err(HeaderError::Malformed("the PROXY header is too short for its addresses")),
        },
        (0x21, 0x21) => match (body.first_chunk::<16>(), body.get(16..36)) {
            (Some(source), Some(rest)) => {
                let destination: [u8; 16] = rest[..16].try_into().unwrap_or_default();
                let [from, to] = ports_of(rest[16..].try_into().unwrap_or_default());
                Ok(Some(((Ipv6Addr::from(*source), from).into(), (Ipv6Addr::from(destination), to).into())))
            }
            _ => Err(HeaderError::Malformed("the PROXY header is too short for its addresses")),
        },
        // Another family than TCP over IP: nothing that a client here could have come by.
        (0x21, _) => Ok(None),
        _ => Err(HeaderError::Malformed("the PROXY header is of no known version or command")),
    }
}

fn ports_of([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1.
const LINE_MAX: usize = 107;

/// The longest body of version 2 that is taken: addresses take 36 bytes, what load balancers add some hundreds.
const BINARY_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(bytes: &[u8]) -> (Result<Ends, String>, usize) {
        let mut rest = bytes;
        let read = read(&mut rest).await.map_err(|why| why.to_string());
        (read, rest.len())
    }

    fn ends(peer: &str, local: &str) -> Ends {
        Some((peer.parse().unwrap(), local.parse().unwrap()))
    }

    fn binary(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, body].concat()
    }

    #[tokio::test]
    async fn either_version_says_where_a_client_is_and_what_follows_is_left() {
        let v4 = ends("192.0.2.7:5000", "192.0.2.8:5672");
        let v6 = ends("[2001:db8::7]:5000", "[2001:db8::8]:5672");
        let line = b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 5672\r\nAMQP";
        assert_eq!(parse(line).await, (Ok(v4), 4));
        assert_eq!(parse(b"PROXY TCP6 2001:db8::7 2001:db8::8 5000 5672\r\nAMQP").await, (Ok(v6), 4));
        assert_eq!(parse(b"PROXY UNKNOWN\r\nAMQP").await, (Ok(None), 4));
        let mut body = vec![192, 0, 2, 7, 192, 0, 2, 8, 0x13, 0x88, 0x16, 0x28];
        assert_eq!(parse(&[binary(0x21, 0x11, &body), b"AMQP".to_vec()].concat()).await, (Ok(v4), 4));
        body.extend([4, 0, 1, 9]);
        assert_eq!(parse(&binary(0x21, 0x11, &body)).await, (Ok(v4), 0), "what load balancers add is skipped");
        let mut body = vec![0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        body.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0x13, 0x88, 0x16, 0x28]);
        assert_eq!(parse(&binary(0x21, 0x21, &body)).await, (Ok(v6), 0));
        assert_eq!(parse(&binary(0x20, 0x00, &[1, 2])).await, (Ok(None), 0), "a health check");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        for bytes in [
            &b"AMQP\0\0\x09\x01AMQP"[..],
            b"PROXY TCP4 192.0.2.7 192.0.2.8 5000\r\n",
            b"PROXY TCP4 192.0.2.7 2001:db8::8 5000 5672\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 65536\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 +500 5672\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 5672 more\r\n",
            b"PROXY TCP5 192.0.2.7 192.0.2.8 5000 5672\r\n",
            b"PROXY TCP4 192.0.2.7\n",
            &long,
            &binary(0x31, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 11]),
            &binary(0x21, 0x21, &[0; 35]),
            &binary(0x21, 0x11, &[0; 5000]),
            &SIGNATURE,
        ] {
            assert!(parse(bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
