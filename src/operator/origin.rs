//! Whose requests the admin listener answers. Any page that an operator visits can make the browser ask this
//! listener; and whoever owns a name can point it at the listener's address, so that the browser takes the
//! answers for those of the owner's page (DNS rebinding).

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Uri};

/// On every answer: no page of another origin may read, embed or frame it, and it loads nothing from
/// elsewhere.
pub(super) const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// A request that is not answered: the status, and what to do.
pub(super) type NotAnswered = (StatusCode, &'static str);

const OTHER_HOST: NotAnswered = (
    StatusCode::MISDIRECTED_REQUEST,
    "the admin port answers for IP addresses, localhost and the names in admin.hosts: add this name there if it \
     is yours\n",
);

const OTHER_ORIGIN: NotAnswered =
    (StatusCode::FORBIDDEN, "the admin port does not answer the pages of others\n");

/// The names that the listener answers for, besides IP addresses and `localhost`.
pub(super) struct Hosts(Box<[String]>);

impl Hosts {
    pub(super) fn new(names: &[String]) -> Hosts {
        Hosts(names.iter().map(|name| name.trim_end_matches('.').to_owned()).collect())
    }

    /// # Errors
    ///
    /// The request is for another host, or a page of another origin has made it.
    pub(super) fn check(&self, request: &Request<Incoming>) -> Result<(), NotAnswered> {
        self.check_head(request.uri(), request.headers())
    }

    fn check_head(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), NotAnswered> {
        let authority = authority(uri, headers).filter(|authority| self.has(authority.host()));
        let authority = authority.ok_or(OTHER_HOST)?;
        let is_own = is_own(uri.path(), headers, &authority);
        is_own.then_some(()).ok_or(OTHER_ORIGIN)
    }

    fn has(&self, host: &str) -> bool {
        // Nobody can point an address elsewhere.
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let name = host.trim_end_matches('.');
        address.parse::<std::net::IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// The host and port that a request is for: those of its target, which HTTP/2 always has, else of its one
/// Host header.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let authority = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, _) => authority.clone(),
        (None, Some(host), None) => Authority::try_from(host.as_bytes()).ok()?,
        _ => return None,
    };
    (!authority.as_str().contains('@')).then_some(authority)
}

/// Whether no page of another origin has made the request, as far as the browser says: over plain HTTP it
/// sends `Sec-Fetch-Site` only to this machine.
fn is_own(path: &str, headers: &HeaderMap, authority: &Authority) -> bool {
    let is = |name: &str, expected: &str| headers.get(name).is_some_and(|value| value == expected);
    if headers.contains_key("sec-fetch-site") {
        // A link on another page may lead here, but only the page itself asks for its parts.
        let is_link = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
        return is("sec-fetch-site", "same-origin")
            || is("sec-fetch-site", "none")
            || is_link && !path.starts_with("/page/");
    }
    headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(authority.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "sec-fetch-site";

    #[track_caller]
    fn check(target: &str, headers: &[(&str, &str)], expected: u16) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        let hosts = Hosts::new(&["Hooks.example.com".into(), "dotted.example.".into()]);
        let checked = hosts.check_head(&target.parse().expect("a target"), &map);
        let status = checked.map_or_else(|(status, _)| status.as_u16(), |()| 200);
        assert_eq!(status, expected, "{target} {headers:?}");
    }

    #[test]
    fn only_addresses_and_known_names_are_answered() {
        for (host, expected) in [
            ("127.0.0.1:8081", 200),
            ("10.1.2.3", 200),
            ("[::1]:8081", 200),
            ("[2001:db8::1]", 200),
            ("localhost", 200),
            ("LOCALHOST.:8081", 200),
            ("hooks.example.com:8081", 200),
            ("HOOKS.example.com.", 200),
            ("dotted.example", 200),
            ("evil.example", 421),
            ("evil.example:8081", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("sub.hooks.example.com", 421),
            ("com", 421),
            ("evil@localhost", 421),
            ("localhost@evil.example", 421),
            ("", 421),
            ("127.1", 421),
            ("2130706433", 421),
        ] {
            check("/", &[("host", host)], expected);
        }
        check("/", &[], 421);
        check("/", &[("host", "localhost"), ("host", "localhost")], 421);
        check("http://localhost:8081/", &[], 200);
        check("http://evil.example/", &[("host", "localhost")], 421);
    }

    #[test]
    fn only_own_pages_are_answered() {
        for (path, headers, expected) in [
            ("/", &[(SITE, "none")][..], 200),
            ("/page/events", &[(SITE, "same-origin")], 200),
            ("/page/events", &[(SITE, "same-site")], 403),
            ("/page/events", &[(SITE, "cross-site")], 403),
            ("/", &[(SITE, "cross-site"), ("sec-fetch-mode", "no-cors")], 403),
            ("/", &[(SITE, "cross-site"), ("sec-fetch-mode", "navigate")], 403),
            (
                "/",
                &[
                    (SITE, "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                200,
            ),
            (
                "/",
                &[
                    (SITE, "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
                403,
            ),
            (
                "/page/events",
                &[
                    (SITE, "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                403,
            ),
            ("/page/events", &[("origin", "http://localhost:8081")], 200),
            ("/page/events", &[("origin", "http://localhost:3000")], 403),
            ("/page/events", &[("origin", "http://evil.example")], 403),
            ("/page/events", &[("origin", "null")], 403),
            ("/page/events", &[], 200),
        ] {
            check(path, &[&[("host", "localhost:8081")], headers].concat(), expected);
        }
    }
}
