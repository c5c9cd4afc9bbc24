//! Where a request to a port is to go: a pure reading of its path.

use crate::service::percent;

/// `/secret/service/rest`, and what comes after a question mark.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route<'p> {
    pub(super) secret: &'p str,
    pub(super) service: String,
    /// Path and query as they were sent: empty, or with `/` or `?` in front.
    pub(super) rest: &'p str,
}

impl<'p> Route<'p> {
    /// Reads path and query; `None` if they name no service.
    pub(super) fn read(path_and_query: &'p str) -> Option<Self> {
        let (secret, service) = path_and_query.strip_prefix('/')?.split_once('/')?;
        let end = service.find(['/', '?']).unwrap_or(service.len());
        let (service, rest) = service.split_at_checked(end)?;
        Some(Self { secret, service: percent::decode(service)?, rest })
    }

    /// Whether the rest may be put behind the base of a service: nothing in it leads out of that base, also not for a service that reads
    /// escapes before it divides the path.
    pub(super) fn stays_below(&self) -> bool {
        let path = self.rest.split('?').next().unwrap_or_default();
        percent::decode(path)
            .is_some_and(|path| path.split(['/', '\\']).all(|part| !matches!(part, "." | "..")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_secret_a_service_and_a_rest() {
        let read = |text| Route::read(text).map(|route| (route.secret, route.service, route.rest));
        assert_eq!(read("/s3/bank"), Some(("s3", "bank".into(), "")));
        assert_eq!(read("/s3/bank/"), Some(("s3", "bank".into(), "/")));
        assert_eq!(read("/s3/the%20bank/a/b?c=/d"), Some(("s3", "the bank".into(), "/a/b?c=/d")));
        assert_eq!(read("/s3/bank?c=/d"), Some(("s3", "bank".into(), "?c=/d")));
        assert_eq!(read("/s3/"), Some(("s3", String::new(), "")));
        for nothing in ["", "/", "/s3", "s3/bank", "*", "/s3/%zz"] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_rest_that_leads_out_of_the_base_is_found() {
        let stays = |rest: &str| Route { secret: "", service: String::new(), rest }.stays_below();
        for rest in ["", "/", "/a/b.c/..d/e..", "/a?b=../c", "?..", "/a//b"] {
            assert!(stays(rest), "{rest}");
        }
        for rest in ["/..", "/a/../b", "/.", "/%2e%2E/a", "/a%2f..%2fb", "/..\\a", "/a/..?b", "/%zz", "/%ff"]
        {
            assert!(!stays(rest), "{rest}");
        }
    }
}
