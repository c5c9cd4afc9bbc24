//! Which headers go through a port, and which stay on this side of it.

use hyper::header::{self, HeaderMap, HeaderName};

/// What is between two neighbours and goes no further (RFC 9110, section 7.6.1), and the length, which is told anew.
const BETWEEN_NEIGHBOURS: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
];
/// The same, by names that are no constants.
const BETWEEN_NEIGHBOURS_TOO: [&str; 2] = ["keep-alive", "proxy-connection"];
/// What a worker says of itself, in whose place the credentials of the service are put; and what is meant for the port.
const OF_THE_WORKER: [HeaderName; 4] =
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::HOST, header::EXPECT];

/// Of a request, what the service is told.
pub(super) fn of_request(headers: &HeaderMap) -> HeaderMap {
    let mut headers = of_answer(headers);
    for name in OF_THE_WORKER {
        headers.remove(name);
    }
    headers
}

/// Of an answer, what the child is told.
pub(super) fn of_answer(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    // It names more of its kind.
    for list in headers.get_all(header::CONNECTION) {
        for name in list.to_str().unwrap_or_default().split(',') {
            if let Ok(name) = name.trim().parse::<HeaderName>() {
                passed.remove(name);
            }
        }
    }
    for name in BETWEEN_NEIGHBOURS {
        passed.remove(name);
    }
    for name in BETWEEN_NEIGHBOURS_TOO {
        passed.remove(name);
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_between_neighbours_and_what_connection_names_goes_no_further() {
        let all = headers(&[
            ("connection", "close, x-hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
        ]);
        assert_eq!(names(&of_answer(&all)), ["content-type", "set-cookie"]);
    }

    #[test]
    fn a_worker_does_not_speak_for_the_service() {
        let all = headers(&[
            ("authorization", "Bearer mine"),
            ("proxy-authorization", "Basic mine"),
            ("host", "127.0.0.1:1"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        assert_eq!(names(&of_request(&all)), ["accept"]);
    }
}
