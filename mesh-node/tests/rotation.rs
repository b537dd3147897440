//! Certificates and roots that are replaced while calls go on, and files that are no identity.

#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use mesh_auth::ca::Authority;
use mesh_auth::spiffe::TrustDomain;
use serde_json::json;

use support::app::App;
use support::load::Load;
use support::mesh::Mesh;
use support::mesh::Node;
use support::process::holds_within;
use support::process::wait_until;

mod support;

with_both_encryptions!(
    a_hundred_certificates_and_twenty_roots_are_replaced_and_no_call_fails,
    what_is_no_whole_identity_is_kept_out,
);

/// Root replacements of one run; each takes three steps, in which both nodes get a new certificate.
const ROOTS: usize = 20;

#[expect(clippy::disallowed_methods, reason = "a certificate must be valid now")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// A root that is some hours old.
fn authority() -> Authority {
    let domain = TrustDomain::parse("example.org").unwrap();
    Authority::generate(&domain, DAY, now() - 3 * HOUR).unwrap()
}

/// What is written into the folder of a node, and when its certificate ends.
struct Files {
    chain: String,
    key: String,
    roots: String,
    end: u64,
}

impl Files {
    /// A certificate of `service` that ends `extra` later than an hour from now.
    fn issue(authority: &Authority, service: &str, roots: &[&Authority], extra: u64) -> Self {
        Self::issue_at(
            authority,
            service,
            roots,
            (now(), HOUR + Duration::from_secs(extra)),
        )
    }

    fn issue_at(
        authority: &Authority,
        service: &str,
        roots: &[&Authority],
        (at, lifetime): (SystemTime, Duration),
    ) -> Self {
        let id = format!("spiffe://example.org/{service}").parse().unwrap();
        let issued = authority.issue(&id, lifetime, at, &[]).unwrap();
        let end = issued.not_after.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            chain: issued.certificate_pem,
            key: issued.key_pem.to_string(),
            roots: roots.iter().map(|root| root.certificate_pem()).collect(),
            end: end.unwrap().as_secs(),
        }
    }

    /// Renames all three into place, one after the other.
    fn write(&self, certs: &Path, service: &str) {
        let key = format!("{service}.key");
        for (name, content) in [
            (&*key, &self.key),
            (&format!("{service}.crt"), &self.chain),
            ("ca.crt", &self.roots),
        ] {
            put(certs, name, content);
        }
    }
}

/// Writes a file whole, for its owner alone.
fn put(dir: &Path, name: &str, content: &str) {
    let new = dir.join(format!("{name}.new"));
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, dir.join(name)).unwrap();
}

/// When the certificate in use ends, in seconds since 1970.
fn end(node: &Node) -> u64 {
    let shown = node.metric("mesh_transport_certificate_expiry_timestamp_seconds");
    format!("{:.0}", shown.unwrap()).parse().unwrap()
}

/// Gives both nodes new files, and waits until both have taken them over.
fn replace(mesh: &Mesh, by: &Authority, roots: &[&Authority], extra: u64) {
    let nodes = [(&mesh.order, "order-service"), (&mesh.user, "user-service")];
    let files = nodes.map(|(_, service)| Files::issue(by, service, roots, extra));
    for ((node, service), files) in nodes.iter().zip(&files) {
        files.write(&node.dir().join("certs"), service);
    }
    for ((node, service), files) in nodes.iter().zip(&files) {
        let done = holds_within(Duration::from_secs(30), || end(node) == files.end);
        assert!(done, "{service} did not take it over\n{}", node.log());
    }
}

fn a_hundred_certificates_and_twenty_roots_are_replaced_and_no_call_fails(encryption: &str) {
    // threat 63, 64
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    let mut old = authority();
    for (node, service) in [(&mesh.order, "order-service"), (&mesh.user, "user-service")] {
        Files::issue(&old, service, &[&old], 0).write(&node.dir().join("certs"), service);
    }
    mesh.start();
    let load = Load::start(&mesh, "GET,POST").unwrap();
    let mut extra = 0;
    for _ in 0..ROOTS {
        let new = authority();
        for (by, roots) in [
            (&old, &[&old, &new][..]),
            (&new, &[&old, &new]),
            (&new, &[&new]),
        ] {
            extra += 100;
            replace(&mesh, by, roots, extra);
        }
        old = new;
    }
    let answered = load.answered();
    let failed = load.end();
    let retries = mesh
        .user
        .metric("mesh_resilience_retries_total")
        .unwrap_or(0.0);
    say(&format!(
        "{encryption}: {} certificates and {ROOTS} roots replaced, {answered} calls answered, {} failed, {retries} retries",
        ROOTS * 3 * 2,
        failed.len(),
    ));
    assert_eq!(failed, Vec::<String>::new());
}

#[expect(clippy::print_stderr, reason = "the figure that this is about")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// One node whose files are spoilt in every way there is.
struct Spoilt<'a> {
    mesh: &'a Mesh,
    end: u64,
}

impl Spoilt<'_> {
    /// What was done is refused, and the old identity goes on.
    fn is_refused(&self, what: &str) {
        let order = &self.mesh.order;
        let refused = || order.metric("mesh_identity_refused_total").unwrap_or(0.0);
        let before = REFUSED.with(std::cell::Cell::get);
        let done = holds_within(Duration::from_secs(20), || refused() > before);
        assert!(done, "{what} was not refused\n{}", order.log());
        REFUSED.with(|seen| seen.set(refused()));
        assert_eq!(end(order), self.end, "{what}");
        self.mesh.call("/api/still", &[]).expect(200);
        let health = order.admin("/health").json();
        assert_eq!(
            health["parts"]["identity"]["level"], "degraded",
            "{what} {health}"
        );
    }

    /// Whole files are taken over, and health is good again.
    fn is_taken(&mut self, files: &Files, what: &str) {
        let order = &self.mesh.order;
        let done = holds_within(Duration::from_secs(20), || end(order) == files.end);
        assert!(done, "{what} was not taken over\n{}", order.log());
        self.end = files.end;
        assert_eq!(
            order.admin("/health").json()["parts"]["identity"],
            json!(null)
        );
        // What was refused on the way, between one file and the next, does not count for what comes.
        let refused = order.metric("mesh_identity_refused_total").unwrap_or(0.0);
        REFUSED.with(|seen| seen.set(refused));
        self.mesh.call("/api/taken", &[]).expect(200);
    }
}

thread_local! {
    /// Refusals that were expected so far.
    static REFUSED: std::cell::Cell<f64> = const { std::cell::Cell::new(0.0) };
}

fn what_is_no_whole_identity_is_kept_out(encryption: &str) {
    // threat 5, 61, 63
    let mut mesh = Mesh::new(encryption);
    let Some(app) = App::start(mesh.path()) else {
        return;
    };
    mesh.order.serve(app.port);
    let (root, service) = (authority(), "order-service");
    let issue = |extra| Files::issue(&root, service, &[&root], extra);
    let certs = mesh.order.dir().join("certs");
    let first = issue(0);
    first.write(&certs, service);
    let users = Files::issue(&root, "user-service", &[&root], 0);
    users.write(&mesh.user.dir().join("certs"), "user-service");
    mesh.start();
    let mut spoilt = Spoilt {
        mesh: &mesh,
        end: first.end,
    };
    let (crt, key) = ("order-service.crt", "order-service.key");

    let next = issue(10);
    put(&certs, crt, &next.chain);
    spoilt.is_refused("a new certificate with the old key");
    put(&certs, key, &next.key);
    spoilt.is_taken(&next, "its key");

    let half = next.chain.get(..next.chain.len() / 2).unwrap();
    put(&certs, crt, half);
    spoilt.is_refused("half a certificate");
    put(&certs, crt, "");
    spoilt.is_refused("an empty file");
    put(
        &certs,
        crt,
        &format!("{}{}", root.certificate_pem(), next.chain),
    );
    spoilt.is_refused("a chain with the leaf last");
    let others = Files::issue(&root, "payment-service", &[&root], 10);
    others.write(&certs, service);
    spoilt.is_refused("somebody else's identity");
    let over = Files::issue_at(&root, service, &[&root], (now() - 2 * HOUR, HOUR));
    over.write(&certs, service);
    spoilt.is_refused("an identity that is over");
    let early = Files::issue_at(&root, service, &[&root], (now() + HOUR, HOUR));
    early.write(&certs, service);
    spoilt.is_refused("an identity that is not valid yet");
    let stranger = authority();
    let strange = Files::issue(&stranger, service, &[&root], 15);
    strange.write(&certs, service);
    spoilt.is_refused("a certificate that our own roots do not vouch for");
    let next = issue(20);
    next.write(&certs, service);
    spoilt.is_taken(&next, "a good one");

    fs::set_permissions(certs.join(key), Permissions::from_mode(0o644)).unwrap();
    spoilt.is_refused("a key that everybody may read");
    fs::remove_file(certs.join(key)).unwrap();
    spoilt.is_refused("no key");
    fs::remove_dir_all(&certs).unwrap();
    spoilt.is_refused("no folder");
    fs::create_dir(&certs).unwrap();
    let next = issue(30);
    next.write(&certs, service);
    spoilt.is_taken(&next, "a folder made again");

    links_pointed_elsewhere(&mut spoilt, &certs, issue);
}

/// As Kubernetes does: files are links into `..data`, and that is pointed elsewhere.
fn links_pointed_elsewhere(spoilt: &mut Spoilt<'_>, certs: &Path, issue: impl FnMut(u64) -> Files) {
    let (service, crt, key) = ("order-service", "order-service.crt", "order-service.key");
    let generation = |name: &str, files: &Files| {
        fs::create_dir(certs.join(name)).unwrap();
        files.write(&certs.join(name), service);
    };
    let point = |to: &str| {
        symlink(to, certs.join("..tmp")).unwrap();
        fs::rename(certs.join("..tmp"), certs.join("..data")).unwrap();
    };
    let [one, two, three] = [40, 50, 60].map(issue);
    generation("..one", &one);
    point("..one");
    for name in [crt, key, "ca.crt"] {
        symlink(format!("..data/{name}"), certs.join("link")).unwrap();
        fs::rename(certs.join("link"), certs.join(name)).unwrap();
    }
    spoilt.is_taken(&one, "links");
    generation("..two", &two);
    put(&certs.join("..two"), key, &one.key);
    point("..two");
    spoilt.is_refused("links to a certificate and another one's key");
    generation("..three", &three);
    point("..three");
    spoilt.is_taken(&three, "links pointed elsewhere");
}

#[test]
fn a_node_whose_certificate_has_ended_is_not_ready_until_it_has_another() {
    // threat 5
    let mut mesh = Mesh::new("mtls");
    let (root, service) = (authority(), "order-service");
    let certs = mesh.order.dir().join("certs");
    let short = (now(), Duration::from_secs(6));
    Files::issue_at(&root, service, &[&root], short).write(&certs, service);
    mesh.order.start();
    let ready = |mesh: &Mesh| mesh.order.admin("/health/ready");
    wait_until("the node is not ready any more", || {
        ready(&mesh).status == 503
    });
    let page = ready(&mesh).text();
    assert!(page.contains("our certificate has ended"), "{page}");
    wait_until("health says it at length", || {
        let health = mesh.order.admin("/health").json();
        let said = health["parts"]["certificate"]["message"]
            .as_str()
            .map(str::to_owned);
        said.is_some_and(|said| said.contains("peers refuse it"))
    });
    let log = mesh.order.log();
    assert!(log.contains("no new one has come"), "{log}");
    Files::issue(&root, service, &[&root], 0).write(&certs, service);
    wait_until("the node is ready again", || ready(&mesh).status == 200);
    assert_eq!(
        mesh.order.admin("/health").json()["parts"]["certificate"],
        json!(null)
    );
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
