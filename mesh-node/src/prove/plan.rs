//! Which calls to make so that every rule has its say, and what the policy on paper says to each.

use std::collections::BTreeSet;

use mesh_auth::policy::Policy;
use mesh_auth::policy::Query;
use mesh_auth::request::CanonicalRequest;
use mesh_auth::request::Limits;
use mesh_transport::Body;
use serde::Deserialize;
use serde::Serialize;

use crate::config::RuleConfig;
use crate::stack::probe::Found;
use crate::stack::probe::StandIn;
use crate::stack::probe::StandInUser;

/// One call to make.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Call {
    /// The rule that it is about.
    pub(crate) rule: String,
    /// What it varies of that rule.
    pub(crate) what: String,
    pub(crate) caller: StandIn,
    pub(crate) method: String,
    pub(crate) path: String,
}

/// Where calls go, and what they are judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paper<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) trust_domain: &'a str,
    pub(crate) service: &'a str,
    pub(crate) port: u16,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

impl Paper<'_> {
    /// What the policy on paper says to `call`; an error where no request can look like that.
    pub(crate) fn expects(&self, call: &Call) -> Result<Found, String> {
        let caller = call
            .caller
            .caller()
            .ok_or("the caller's id is not a SPIFFE id")?;
        let request = call
            .request(self.service)
            .map_err(|error| error.to_string())?;
        let request = CanonicalRequest::new(request.into_parts().0, &Limits::default());
        let request = request.map_err(|error| error.to_string())?;
        let query = Query::new(&caller, self.service, self.now)
            .with_port(self.port)
            .with_request(&request);
        Ok(Found::on_paper(&self.policy.decide(&query)))
    }

    /// The calls about one rule: one for each value of each of its lists, and near misses. None where the rule is not
    /// about this service and port.
    pub(crate) fn calls(&self, rule: &RuleConfig) -> Vec<Call> {
        let to = &rule.to;
        let is_ours = to.service == "*" || to.service == self.service;
        if !is_ours || !(to.ports.is_empty() || to.ports.contains(&self.port)) {
            return Vec::new();
        }
        let froms = one_or_more(&rule.from, "*");
        let users: Vec<Option<&str>> = match rule.users.as_slice() {
            [] => vec![None],
            users => users.iter().map(|user| Some(user.as_str())).collect(),
        };
        let methods = one_or_more(&to.methods, "GET");
        let paths: Vec<String> = match to.paths.as_slice() {
            [] => vec!["/mesh-probe".to_owned()],
            paths => paths.iter().map(|path| instance(path)).collect(),
        };
        let base = (froms[0], users[0], methods[0], paths[0].as_str());
        let mut calls = vec![("as written", base)];
        calls.extend(
            froms
                .iter()
                .skip(1)
                .map(|from| ("another of its callers", (*from, base.1, base.2, base.3))),
        );
        calls.extend(
            users
                .iter()
                .skip(1)
                .map(|user| ("another of its users", (base.0, *user, base.2, base.3))),
        );
        calls.extend(
            methods
                .iter()
                .skip(1)
                .map(|method| ("another of its methods", (base.0, base.1, *method, base.3))),
        );
        calls.extend(paths.iter().skip(1).map(|path| {
            (
                "another of its paths",
                (base.0, base.1, base.2, path.as_str()),
            )
        }));
        calls.push(("a stranger", (STRANGER, None, base.2, base.3)));
        calls.push((
            "a method that it does not name",
            (base.0, base.1, other_method(&to.methods), base.3),
        ));
        calls.push((
            "a path that it does not name",
            (base.0, base.1, base.2, "/mesh-probe/elsewhere"),
        ));
        let mut seen = BTreeSet::new();
        calls
            .into_iter()
            .filter(|(_, parts)| seen.insert(*parts))
            .take(MOST_CALLS_A_RULE)
            .map(|(what, (from, user, method, path))| Call {
                rule: rule.name.clone(),
                what: what.to_owned(),
                caller: self.stand_in(from, user),
                method: method.to_owned(),
                path: path.to_owned(),
            })
            .collect()
    }

    /// Somebody whom `from`, and `user` where there is one, describe.
    fn stand_in(&self, from: &str, user: Option<&str>) -> StandIn {
        let own = |name: &str| Some(format!("spiffe://{}/{name}", self.trust_domain));
        let mut stand_in = StandIn::default();
        let is_user_form = USER_FORMS.iter().any(|form| from.starts_with(form));
        stand_in.spiffe_id = match from {
            "*" => own("mesh-probe-caller"),
            "anonymous" => None,
            _ if is_user_form => own(STRANGER),
            _ if from.starts_with("spiffe://") => Some(match from.strip_suffix("/*") {
                Some(below) => format!("{below}/mesh-probe-caller"),
                None if from.matches('/').count() == 2 => format!("{from}/mesh-probe-caller"),
                None => from.to_owned(),
            }),
            service => own(service),
        };
        let forms = [Some(from).filter(|_| is_user_form), user];
        for form in forms.into_iter().flatten() {
            describe(form, stand_in.user.get_or_insert_with(some_user));
        }
        stand_in
    }
}

impl Call {
    /// The request, without what says for whom it stands.
    pub(crate) fn request(&self, service: &str) -> Result<http::Request<Body>, http::Error> {
        http::Request::builder()
            .method(self.method.as_str())
            .uri(self.path.as_str())
            .header(http::header::HOST, service)
            .body(Body::empty())
    }
}

fn some_user() -> StandInUser {
    StandInUser {
        issuer: "mesh-probe".to_owned(),
        subject: "mesh-probe".to_owned(),
        ..StandInUser::default()
    }
}

/// Makes `user` one whom `form` describes.
fn describe(form: &str, user: &mut StandInUser) {
    let (kind, value) = form.split_once(':').unwrap_or((form, ""));
    match kind {
        "group" => user.groups.push(value.to_owned()),
        "role" => user.roles.push(value.to_owned()),
        "issuer" => value.clone_into(&mut user.issuer),
        "subject" => value.clone_into(&mut user.subject),
        "claim" => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            user.claims.insert(name.to_owned(), value.to_owned());
        }
        // `*`: any user.
        _ => {}
    }
}

fn one_or_more<'a>(list: &'a [String], default: &'a str) -> Vec<&'a str> {
    match list {
        [] => vec![default],
        list => list.iter().map(String::as_str).collect(),
    }
}

fn other_method(named: &[String]) -> &'static str {
    let other = ["DELETE", "POST", "GET", "PUT", "PATCH", "HEAD", "OPTIONS"];
    let free = other
        .into_iter()
        .find(|method| named.iter().all(|named| named != method));
    free.unwrap_or("PROBE")
}

/// A path that the pattern matches.
fn instance(pattern: &str) -> String {
    if let Some(suffix) = pattern.strip_prefix('*') {
        return format!("/mesh-probe{suffix}");
    }
    let (start, is_prefix) = match pattern.strip_suffix("/*") {
        Some(start) => (start, true),
        None => (pattern, false),
    };
    let segments = start.split('/').map(|segment| {
        if segment.starts_with('{') && segment.ends_with('}') {
            "mesh-probe"
        } else {
            segment
        }
    });
    let path = segments.collect::<Vec<_>>().join("/");
    if is_prefix {
        format!("{path}/mesh-probe")
    } else {
        path
    }
}

const USER_FORMS: [&str; 5] = ["group:", "role:", "claim:", "issuer:", "subject:"];
/// No service should be called that.
pub(crate) const STRANGER: &str = "mesh-probe-stranger";
/// A rule with long lists is proven by this many of their values.
const MOST_CALLS_A_RULE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_has_an_instance_that_it_matches() {
        for (pattern, path) in [
            ("/orders", "/orders"),
            ("/orders/*", "/orders/mesh-probe"),
            ("*/export", "/mesh-probe/export"),
            ("*.json", "/mesh-probe.json"),
            ("/users/{id}/orders", "/users/mesh-probe/orders"),
            ("/users/{id}/*", "/users/mesh-probe/mesh-probe"),
            ("/*", "/mesh-probe"),
        ] {
            assert_eq!(instance(pattern), path);
        }
    }
}
