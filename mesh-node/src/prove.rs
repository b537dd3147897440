//! Proof that a running node does what its policy says: calls for every rule and attacks, over the way that real calls
//! take, and a signed report.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use mesh_auth::ca::Authority;
use mesh_auth::spiffe::SpiffeId;
use mesh_transport::Body;
use mesh_transport::BoxError;
use mesh_transport::spiffe::SpiffeLeaf;
use mesh_transport::tasks::Tasks;
use mesh_transport::tls::Credentials;
use mesh_transport::tls::TlsStore;
use mesh_transport::tls::TrustBundles;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use self::line::Answer;
use self::line::Line;
use self::plan::Call;
use self::plan::Paper;
use self::report::Probe;
use self::report::Unproven;
use crate::config::RuleConfig;
use crate::stack::probe::Found;
use crate::stack::probe::StandIn;
use crate::stack::probe::X_MESH_PROBE;

mod attacks;
pub(crate) mod line;
pub(crate) mod plan;
mod replay;
pub(crate) mod report;

pub(crate) use self::line::Target;

/// Who probes what.
pub(crate) struct Prober<'a> {
    pub(crate) target: Target,
    pub(crate) paper: Paper<'a>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// The prober's certificate and key, PEM.
    pub(crate) pair: (Vec<u8>, Zeroizing<Vec<u8>>),
    pub(crate) tls: Arc<TlsStore>,
    pub(crate) id: SpiffeId,
    /// The authority, where there is one to make bad certificates with.
    pub(crate) ca_dir: Option<&'a Path>,
}

/// What was tried and seen.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) probes: Vec<Probe>,
    pub(crate) unproven: Vec<Unproven>,
    pub(crate) attacks: Vec<report::Attack>,
}

impl Prober<'_> {
    /// Makes every call and tries every attack.
    ///
    /// # Errors
    ///
    /// When not even the prober's own way to the node can be made.
    pub(crate) async fn run(&self, rules: &[RuleConfig], tasks: &Tasks) -> Result<Tried, BoxError> {
        let direct = (self.target.address, &self.target.id);
        let line = Line::new(&self.target, (&self.tls, &self.id), direct, tasks)?;
        let (mut probes, mut unproven) = (Vec::new(), Vec::new());
        for rule in rules {
            let calls = self.paper.calls(rule);
            let mut decided = false;
            let mut first = None;
            for call in calls {
                let expected = match self.paper.expects(&call) {
                    Ok(expected) => expected,
                    Err(error) => {
                        first = first.or(Some(error));
                        continue;
                    }
                };
                decided |= expected.rule.as_deref() == Some(&*rule.name);
                probes.push(self.probe(&line, call, expected).await);
            }
            if !decided {
                let why = first.unwrap_or_else(|| why_not(rule, &self.paper));
                unproven.push(Unproven {
                    rule: rule.name.clone(),
                    why,
                });
            }
        }
        let attacks = attacks::all(self, &line, tasks).await;
        Ok(Tried {
            probes,
            unproven,
            attacks,
        })
    }

    async fn probe(&self, line: &Line, call: Call, expected: Found) -> Probe {
        let answer = self.ask(line, &call).await;
        let found = answer.and_then(|answer| match answer {
            Answer {
                found: Some(found), ..
            } => Ok(found),
            Answer { status, code, .. } => Err(format!(
                "the node answered {} {} and no decision; is its security.probe {}?",
                status.as_u16(),
                code.as_deref().unwrap_or("without a code"),
                self.id
            )),
        });
        let (found, error) = match found {
            Ok(found) => (Some(found), None),
            Err(error) => (None, Some(error)),
        };
        Probe {
            ok: found.as_ref() == Some(&expected),
            call,
            expected,
            found,
            error,
        }
    }

    /// Asks, and once more where the node's rate limit says when.
    async fn ask(&self, line: &Line, call: &Call) -> Result<Answer, String> {
        for _ in 0..MOST_WAITS {
            let mut request = call
                .request(&self.target.service)
                .map_err(|error| error.to_string())?;
            if let Some(header) = call.caller.header() {
                request.headers_mut().insert(X_MESH_PROBE, header);
            }
            let answer = line.send(request).await?;
            match answer.retry_after {
                Some(wait) if answer.status == http::StatusCode::TOO_MANY_REQUESTS => {
                    tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
                }
                _ => return Ok(answer),
            }
        }
        Err("the node's rate limit leaves no room for probes".to_owned())
    }

    /// A probe in the name of a stranger, for attacks.
    fn probe_of(&self, path: &str) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        let uri: Result<http::Uri, _> = path.parse();
        *request.uri_mut() = uri.unwrap_or_default();
        let host = http::HeaderValue::try_from(&*self.target.service);
        if let Ok(host) = host {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let stranger = StandIn {
            spiffe_id: Some(format!(
                "spiffe://{}/{}",
                self.target.id.trust_domain(),
                plan::STRANGER
            )),
            user: None,
        };
        if let Some(header) = stranger.header() {
            request.headers_mut().insert(X_MESH_PROBE, header);
        }
        request
    }
}

fn why_not(rule: &RuleConfig, paper: &Paper<'_>) -> String {
    let to = &rule.to;
    if to.service != "*" && to.service != paper.service {
        return format!("it is about {}, not about {}", to.service, paper.service);
    }
    if !(to.ports.is_empty() || to.ports.contains(&paper.port)) {
        return format!("none of its ports is {}", paper.port);
    }
    if rule.when.is_some() {
        return "no call could be made that meets its condition".to_owned();
    }
    "another rule decides about all that it covers, or it has ended".to_owned()
}

/// The authority in `dir`.
pub(crate) fn authority(dir: &Path) -> Result<Authority, BoxError> {
    let certificate = std::fs::read_to_string(dir.join("ca.crt"))?;
    let key = Zeroizing::new(std::fs::read_to_string(dir.join("ca.key"))?);
    Ok(Authority::from_pem(&certificate, &key)?)
}

/// What shows `pair` and trusts `roots` for the target's trust domain.
pub(crate) fn store(
    target: &Target,
    roots: &[CertificateDer<'static>],
    (chain, key): (&[u8], &[u8]),
) -> Result<Arc<TlsStore>, BoxError> {
    let domain = target.id.trust_domain().to_string();
    let bundles = TrustBundles::new().with_domain(&domain, roots)?;
    let credentials = Credentials::from_pem(chain, key)?;
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let store = TlsStore::new(Arc::new(SpiffeLeaf::new()), clock, credentials, bundles)?;
    Ok(Arc::new(store))
}

/// How often a probe waits for the rate limit, and how long at most.
const MOST_WAITS: usize = 5;
const LONGEST_WAIT: Duration = Duration::from_mins(1);
