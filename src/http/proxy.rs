//! The address of a sender behind trusted proxies: from a header of each request, or from the PROXY protocol
//! at the beginning of a connection. Both are ignored from any other address, since anyone can write them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::FORWARDED;
use ipnet::IpNet;
use ppp::{HeaderResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{Drain, Transport};
use crate::click::outcome::Refusal;
use crate::config::HttpSettings;

/// The address of a sender that a trusted proxy does not name legibly. It is in no network that a setting
/// would list.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Bytes that tell the two versions of the PROXY protocol apart.
const PREFIX_LENGTH: usize = v2::PROTOCOL_PREFIX.len();

/// Bytes of a header of version 1, with its line end (section 2.1).
const V1_LENGTH_MAX: usize = 107;

/// Bytes of a header of version 2 after its length: addresses, and what a proxy may add.
const V2_LENGTH_MAX: usize = 4 << 10;

pub(super) fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    // On a socket for both families an IPv4 proxy has an address of IPv6.
    proxies.iter().any(|net| net.contains(&address.to_canonical()))
}

/// The address of a request's sender: the last one before those of trusted proxies. Its port is 0 where the
/// proxy does not name it.
pub fn sender_address(
    peer: SocketAddr,
    headers: &HeaderMap,
    settings: &HttpSettings,
) -> SocketAddr {
    let is_proxy = |address: SocketAddr| is_trusted(&settings.trusted_proxies, address.ip());
    if !is_proxy(peer) {
        return peer;
    }
    let name = settings.forwarded_header.as_str();
    let is_standard = name.eq_ignore_ascii_case(FORWARDED.as_str());
    let mut sender = peer;
    // The nearest proxy wrote last.
    for value in headers.get_all(name).iter().rev() {
        let text = value.to_str().unwrap_or("?");
        let hops = if is_standard { forwarded(text) } else { listed(text) };
        for hop in hops.into_iter().rev() {
            sender = hop.unwrap_or(UNKNOWN);
            if !is_proxy(sender) {
                return sender;
            }
        }
    }
    sender
}

/// The addresses of `X-Forwarded-For` and similar headers; none for one that cannot be read.
fn listed(text: &str) -> Vec<Option<SocketAddr>> {
    let hops = text.split(',').map(str::trim).filter(|hop| !hop.is_empty());
    hops.map(address).collect()
}

/// The addresses of `Forwarded` (RFC 7239, section 4); none for one that cannot be read.
fn forwarded(text: &str) -> Vec<Option<SocketAddr>> {
    let Some(hops) = unquoted(text, ',') else { return vec![None] };
    let hops = hops.into_iter().map(str::trim).filter(|hop| !hop.is_empty());
    hops.map(|hop| {
        let pairs = unquoted(hop, ';')?.into_iter().filter_map(|pair| pair.split_once('='));
        let mut nodes = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
        let (_, node) = nodes.next().filter(|_| nodes.next().is_none())?;
        address(node.trim().trim_matches('"'))
    })
    .collect()
}

/// Splits at separators outside of quotes. None if a quote is not closed.
fn unquoted(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|c: char| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            c => return c == separator && !is_quoted,
        }
        false
    });
    let parts = parts.collect();
    (!is_quoted).then_some(parts)
}

/// Reads an address with or without a port. An IPv6 address may be in brackets.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let alone = bare.parse().ok().map(|address| SocketAddr::new(address, 0));
    alone.or_else(|| text.parse().ok())
}

/// Waits for the PROXY header of a connection, as long as for the head of a request. The address of the
/// client; none if the proxy connects on its own behalf.
///
/// # Errors
///
/// Why the connection is to be closed; no refusal where it ended or the bridge drains.
pub(super) async fn read_header(
    stream: &mut impl Transport,
    settings: &HttpSettings,
    drain: &Drain,
) -> Result<Option<SocketAddr>, Option<Refusal>> {
    let result = tokio::select! {
        // A header that is there counts, also where the drain's time is over.
        biased;
        result = timeout(settings.header_timeout(), read(stream)) => result,
        () = drain.first_request_is_overdue() => return Err(None),
    };
    let header = result.map_err(|_elapsed| Some(Refusal::SlowHead))?;
    // Load balancers connect and hang up as a health check.
    let header = header.map_err(|_ended| None)?;
    parse(&header).ok_or(Some(Refusal::NotHttp))
}

/// Reads the header and not a byte more. One that is too long is left incomplete, and so is no header.
async fn read(stream: &mut impl Transport) -> io::Result<Vec<u8>> {
    let mut header = vec![0; PREFIX_LENGTH];
    stream.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        let [kind, length] = [stream.read_u16().await?, stream.read_u16().await?];
        header.extend([kind, length].map(u16::to_be_bytes).concat());
        let begin = header.len();
        if usize::from(length) <= V2_LENGTH_MAX {
            header.resize(begin + usize::from(length), 0);
            stream.read_exact(&mut header[begin..]).await?;
        }
    } else {
        while header.starts_with(b"PROXY ")
            && !header.ends_with(b"\n")
            && header.len() < V1_LENGTH_MAX
        {
            header.push(stream.read_u8().await?);
        }
    }
    Ok(header)
}

/// The client of a complete header; none if it is no header.
fn parse(header: &[u8]) -> Option<Option<SocketAddr>> {
    let source = match HeaderResult::parse(header) {
        HeaderResult::V1(header) => match header.ok()?.addresses {
            v1::Addresses::Tcp4(pair) => Some((pair.source_address.into(), pair.source_port)),
            v1::Addresses::Tcp6(pair) => Some((pair.source_address.into(), pair.source_port)),
            v1::Addresses::Unknown => None,
        },
        HeaderResult::V2(header) => match header.ok()? {
            v2::Header { command: v2::Command::Local, .. } => None,
            v2::Header { addresses, .. } => match addresses {
                v2::Addresses::IPv4(pair) => Some((pair.source_address.into(), pair.source_port)),
                v2::Addresses::IPv6(pair) => Some((pair.source_address.into(), pair.source_port)),
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            },
        },
    };
    Some(source.map(|(ip, port)| SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, peer: &str, sent: &[(&'static str, &str)], expected: &str) {
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"];
        let settings = HttpSettings {
            trusted_proxies: trusted.map(|net| net.parse().expect("a network")).into(),
            forwarded_header: header.into(),
            ..HttpSettings::default()
        };
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, value.parse().expect("a header value"));
        }
        let peer = SocketAddr::new(peer.parse().expect("an address"), 4711);
        let sender = sender_address(peer, &headers, &settings);
        assert_eq!(sender.to_string(), expected, "{header} {peer} {sent:?}");
    }

    #[test]
    fn the_last_address_before_those_of_proxies_is_the_senders() {
        let check = |peer, sent: &[&str], expected| {
            let sent: Vec<_> = sent.iter().map(|value| ("x-forwarded-for", *value)).collect();
            check("X-Forwarded-For", peer, &sent, expected);
        };
        check("10.0.0.1", &["203.0.113.7"], "203.0.113.7:0");
        check("10.0.0.1", &["203.0.113.7:80"], "203.0.113.7:80");
        check("10.0.0.1", &["2001:db8::7"], "[2001:db8::7]:0");
        check("10.0.0.1", &["[2001:db8::7]"], "[2001:db8::7]:0");
        check("10.0.0.1", &["[2001:db8::7]:80"], "[2001:db8::7]:80");
        check("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7:0");
        // What the sender wrote itself is further to the left.
        check("10.0.0.1", &["10.9.9.9, 203.0.113.7"], "203.0.113.7:0");
        check("10.0.0.1", &["192.0.2.1,203.0.113.7, 10.0.0.2 ,2001:db8:1::1"], "203.0.113.7:0");
        check("10.0.0.1", &["192.0.2.1", "203.0.113.7", "10.0.0.2"], "203.0.113.7:0");
        check("10.0.0.1", &["nonsense, 203.0.113.7,,"], "203.0.113.7:0");
        check("10.0.0.1", &["\"192.0.2.1, 203.0.113.7"], "203.0.113.7:0");
        // Only proxies have had it.
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3:0");
        check("10.0.0.1", &[], "10.0.0.1:4711");
        check("10.0.0.1", &[""], "10.0.0.1:4711");
        // A proxy that does not say who it was.
        check("10.0.0.1", &["203.0.113.7, unknown"], "0.0.0.0:0");
        check("10.0.0.1", &["203.0.113.7, 10.0.0.256"], "0.0.0.0:0");
        check("10.0.0.1", &["203.0.113.7", "192.0.2.1\u{e9}"], "0.0.0.0:0");
        // Anybody else is not listened to.
        check("203.0.113.9", &["10.0.0.1"], "203.0.113.9:4711");
        check("2001:db8::1", &["10.0.0.1"], "[2001:db8::1]:4711");
    }

    #[test]
    fn forwarded_is_read_by_its_own_rules() {
        let check = |sent: &[&str], expected| {
            let sent: Vec<_> = sent.iter().map(|value| ("forwarded", *value)).collect();
            check("forwarded", "10.0.0.1", &sent, expected);
        };
        check(&["for=203.0.113.7"], "203.0.113.7:0");
        check(&["by=10.0.0.1; FOR=\"203.0.113.7:80\" ;proto=https"], "203.0.113.7:80");
        check(&["for=\"[2001:db8::7]:80\""], "[2001:db8::7]:80");
        check(&["for=192.0.2.1, for=203.0.113.7;host=a, for=10.0.0.2"], "203.0.113.7:0");
        check(&["for=192.0.2.1", "for=203.0.113.7"], "203.0.113.7:0");
        // A sender's own host name, which the proxy has passed on.
        check(&["for=203.0.113.7;host=\"x,for=192.0.2.1\""], "203.0.113.7:0");
        check(&["for=203.0.113.7;host=\"x\\\",for=192.0.2.1;\""], "203.0.113.7:0");
        check(&["host=\"for=192.0.2.1;\";for=203.0.113.7"], "203.0.113.7:0");
        // The sender's quote is not closed: it may have swallowed what the proxy wrote.
        check(&["for=\"192.0.2.1, for=203.0.113.7"], "0.0.0.0:0");
        check(&["for=\"192.0.2.1", "for=203.0.113.7"], "203.0.113.7:0");
        for unknown in ["for=unknown", "for=_hidden", "proto=https", "for=192.0.2.1;for=192.0.2.2"]
        {
            check(&["for=192.0.2.1", unknown], "0.0.0.0:0");
        }
    }

    #[test]
    fn only_the_configured_header_counts() {
        let spoofed = [("forwarded", "for=10.1.1.1"), ("x-forwarded-for", "203.0.113.7")];
        check("x-forwarded-for", "10.0.0.1", &spoofed, "203.0.113.7:0");
        check("forwarded", "10.0.0.1", &spoofed, "10.1.1.1:0");
        check("cf-connecting-ip", "10.0.0.1", &spoofed, "10.0.0.1:4711");
        check("x-real-ip", "10.0.0.1", &[("x-real-ip", "203.0.113.7")], "203.0.113.7:0");
    }

    /// Whom a header speaks for, or that it is none.
    #[track_caller]
    fn check_header(header: &[u8], expected: Option<&str>) {
        let parsed = parse(header).map(|sender| sender.map_or("itself".into(), |s| s.to_string()));
        assert_eq!(parsed.as_deref(), expected, "{header:?}");
    }

    #[test]
    fn a_header_of_the_proxy_protocol_is_read_or_refused() {
        let sender = Some("203.0.113.7:56324");
        check_header(b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n", sender);
        let sixth = Some("[2001:db8::7]:56324");
        check_header(b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", sixth);
        check_header(b"PROXY UNKNOWN\r\n", Some("itself"));
        check_header(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Some("itself"));
        for wrong in [
            "PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 56324 443\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 56324\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n",
            "PROXY TCP5 203.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY \r\n",
            "GET / HTTP/1",
            "",
        ] {
            check_header(wrong.as_bytes(), None);
        }
        let binary = |command: u8, family: u8, rest: &[u8]| {
            let mut header = v2::PROTOCOL_PREFIX.to_vec();
            header.extend([0x20 | command, family, 0, rest.len() as u8]);
            header.extend(rest);
            header
        };
        let pair = [203, 0, 113, 7, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb];
        check_header(&binary(1, 0x11, &pair), sender);
        // With something that the proxy adds.
        check_header(&binary(1, 0x11, &[&pair[..], &[4, 0, 1, 0]].concat()), sender);
        check_header(&binary(0, 0x11, &pair), Some("itself"));
        check_header(&binary(0, 0x00, &[]), Some("itself"));
        check_header(&binary(1, 0x00, &[]), Some("itself"));
        check_header(&binary(1, 0x31, &[0; 216]), Some("itself"));
        let sixteen = |end| [[0x20, 1, 0x0d, 0xb8].as_slice(), &[0; 11], &[end]].concat();
        let pair = [sixteen(7), sixteen(1), vec![0xdc, 0x04, 0x01, 0xbb]].concat();
        check_header(&binary(1, 0x21, &pair), sixth);
        check_header(&binary(1, 0x21, &pair[..12]), None);
        check_header(&binary(2, 0x11, &[0; 12]), None);
        check_header(&binary(1, 0x41, &[0; 12]), None);
    }
}
