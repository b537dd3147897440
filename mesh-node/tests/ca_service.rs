//! The built-in authority as a service: nodes that get their identity from it, and those who should get nothing.

#![allow(clippy::unwrap_used, reason = "a test helper may panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use mesh_auth::bundle::Bundle;
use mesh_auth::ca::csr::PendingKey;
use mesh_auth::spiffe::TrustDomain;
use mesh_auth::svid::CertificateFacts;
use mesh_auth::svid::inspect;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use serde_json::json;
use support::client::Answer;
use support::client::curl;
use support::client::curl_raw;
use support::client::raw;
use support::mesh::Mesh;
use support::mesh::Node;
use support::mesh::cli;
use support::mesh::try_cli;
use support::process::Process;
use support::process::free_port;
use support::process::holds_within;
use support::process::is_open;
use support::process::wait_until;
use support::tools::python;
use support::tools::tool;

/// A served authority.
struct Ca {
    port: u16,
    home: PathBuf,
    options: String,
    process: Option<Process>,
}

impl Ca {
    /// Serves the authority in `home/ca`.
    fn serve(home: &Path, options: &str) -> Self {
        let mut ca = Self {
            port: free_port(),
            home: home.to_owned(),
            options: options.to_owned(),
            process: None,
        };
        ca.start();
        ca
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-node"));
        command
            .args(["ca", "serve", "--dir", "ca", "--listen"])
            .arg(format!("127.0.0.1:{}", self.port))
            .args(self.options.split_whitespace())
            .current_dir(&self.home)
            .env_clear();
        self.process = Some(Process::start(&mut command, &self.home, "ca"));
        wait_until("the authority listens", || is_open(self.port));
    }

    fn kill(&mut self) {
        self.process.as_mut().unwrap().kill();
    }

    fn log(&self) -> String {
        self.process.as_ref().unwrap().err()
    }

    fn url(&self, target: &str) -> String {
        format!("https://127.0.0.1:{}{target}", self.port)
    }

    /// A request of somebody who has the root and nothing else.
    fn ask(&self, target: &str, args: &[&str]) -> Answer {
        let (root, url) = (self.home.join("ca/ca.crt"), self.url(target));
        let mut all = vec!["--cacert", root.to_str().unwrap(), &url];
        all.extend(args);
        curl(&all)
    }

    /// Asks for a certificate for `request`.
    fn sign(&self, request: &Path, args: &[&str]) -> Answer {
        let body = format!("@{}", request.display());
        let mut all = vec!["--data-binary", &body];
        all.extend(args);
        self.ask("/v1/sign", &all)
    }

    fn join(&self, request: &Path, token: &str) -> Answer {
        self.sign(request, &["-H", &format!("authorization: Bearer {token}")])
    }

    fn token(&self, service: &str) -> String {
        cli(&self.home, &format!("ca token --id {service}"))
            .trim()
            .to_owned()
    }

    /// A request for a fresh key, in a file.
    fn request(&self, name: &str) -> PathBuf {
        let path = self.home.join(format!("{name}.csr"));
        let key = PendingKey::generate().unwrap();
        fs::write(&path, key.request_pem().unwrap()).unwrap();
        path
    }

    fn audited(&self, text: &str) -> usize {
        let log = fs::read_to_string(self.home.join("ca/audit.log")).unwrap();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

/// Lets a node get its identity from the authority, with a token where one is given.
fn enrol(node: &mut Node, ca: &Ca, token: Option<&str>, lifetime: &str) {
    let root = node.dir().join("root.crt");
    fs::copy(ca.home.join("ca/ca.crt"), &root).unwrap();
    node.config["identity"] = json!({
        "trust_domain": "example.org",
        "source": "builtin",
        "ca_url": ca.url(""),
        "ca_file": "root.crt",
        "ca_dir": "identity",
        "certificate_lifetime": lifetime,
    });
    if let Some(token) = token {
        private(&node.dir().join("join.token"), token);
        node.config["identity"]["join_token_file"] = json!("join.token");
    }
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Two nodes that got their identities from a served authority, and an application behind one.
fn mesh(encryption: &str, lifetime: &str) -> Option<(Mesh, Ca, support::app::App)> {
    let mut mesh = Mesh::new(encryption);
    let app = support::app::App::start(mesh.path())?;
    // The nodes have certificates for an hour of the one before, which nobody would wait for.
    cli(mesh.path(), "ca init --trust-domain example.org --force");
    let ca = Ca::serve(mesh.path(), "");
    mesh.order.serve(app.port);
    let [user, order] = ["user-service", "order-service"].map(|service| ca.token(service));
    enrol(&mut mesh.user, &ca, Some(&user), lifetime);
    enrol(&mut mesh.order, &ca, Some(&order), lifetime);
    mesh.start();
    Some((mesh, ca, app))
}

fn facts(pem: &str) -> CertificateFacts {
    inspect(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
}

/// The certificate that a node keeps.
fn kept(node: &Node) -> CertificateFacts {
    facts(&fs::read_to_string(node.dir().join("identity/identity.pem")).unwrap())
}

/// The roots that a node keeps.
fn told(node: &Node) -> usize {
    let text = fs::read_to_string(node.dir().join("identity/bundle.json")).unwrap();
    let kept: Value = serde_json::from_str(&text).unwrap();
    kept["bundle"].as_str().unwrap().matches("BEGIN").count()
}

fn signer(ca: &Ca) -> String {
    facts(&fs::read_to_string(ca.home.join("ca/ca.crt")).unwrap()).subject
}

#[test]
fn a_node_joins_with_a_token_once_and_needs_none_after_a_restart() {
    let Some((mut mesh, ca, _app)) = mesh("mtls", "1h") else {
        return;
    };
    mesh.call("/hello", &[]).expect(200);
    assert_eq!(
        kept(&mesh.user).spiffe_id.unwrap().as_str(),
        "spiffe://example.org/user-service"
    );
    let mode = |path: &str| {
        let path = mesh.user.dir().join(path);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(
        [mode("identity"), mode("identity/identity.pem")],
        [0o700, 0o600]
    );

    // Another node with the same token, as whoever stole it would.
    let mut thief = mesh.node("user-service", "thief");
    let token = fs::read_to_string(mesh.user.dir().join("join.token")).unwrap();
    enrol(&mut thief, &ca, Some(&token), "1h");
    thief.config["identity"]["startup_timeout"] = json!("2s");
    thief.spawn();
    assert!(!thief.process().wait(Duration::from_secs(20)).success());
    let log = thief.log();
    assert!(log.contains("unknown, used or expired"), "{log}");
    assert!(!log.contains(&token), "{log}");
    assert!(ca.audited("already") > 0);

    fs::remove_file(mesh.user.dir().join("join.token")).unwrap();
    enrol(&mut mesh.user, &ca, None, "1h");
    assert!(mesh.user.stop().success());
    let before = kept(&mesh.user).serial;
    mesh.user.start();
    mesh.call("/hello", &[]).expect(200);
    assert_eq!(kept(&mesh.user).serial, before);
}

#[test]
fn a_node_without_certificate_and_token_says_what_it_needs() {
    let mut mesh = Mesh::new("mtls");
    let ca = Ca::serve(mesh.path(), "");
    enrol(&mut mesh.user, &ca, None, "1h");
    mesh.user.config["identity"]["startup_timeout"] = json!("1s");
    mesh.user.spawn();
    assert!(!mesh.user.process().wait(Duration::from_secs(20)).success());
    let log = mesh.user.log();
    assert!(log.contains("mesh-node ca token"), "{log}");
    // A token for somebody else makes it nobody else.
    let token = ca.token("payment-service");
    enrol(&mut mesh.user, &ca, Some(&token), "1h");
    mesh.user.config["identity"]["startup_timeout"] = json!("1s");
    mesh.user.spawn();
    assert!(!mesh.user.process().wait(Duration::from_secs(20)).success());
    let log = mesh.user.log();
    assert!(
        log.contains("the join token is for another service"),
        "{log}"
    );
}

#[test]
fn nothing_breaks_while_the_authority_is_away() {
    let Some((mut mesh, mut ca, _app)) = mesh("mtls", "8s") else {
        return;
    };
    let first = kept(&mesh.user).serial;
    ca.kill();
    wait_until("the node has missed the authority", || {
        mesh.call("/hello", &[]).expect(200);
        mesh.user.metric("mesh_identity_source_failures_total") > Some(0.0)
    });
    ca.start();
    let renewed = holds_within(Duration::from_secs(20), || {
        mesh.call("/hello", &[]).expect(200);
        kept(&mesh.user).serial != first && kept(&mesh.order).serial != first
    });
    assert!(renewed, "{}", mesh.user.log());
    assert!(mesh.user.stop().success());
    assert!(mesh.order.stop().success());
}

/// Calls without end, and counts those that failed.
fn under_calls(mesh: &Mesh, work: impl FnOnce()) -> (usize, Vec<Answer>) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let (mut count, mut failed) = (0, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let answer = mesh.call("/hello", &["-d", "body"]);
                count += 1;
                if answer.status != 200 {
                    failed.push(answer);
                }
            }
            (count, failed)
        });
        // Also where the work fails, or the calls would never end.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        let calls = calls.join().unwrap();
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
        calls
    })
}

// threat 64
fn a_root_is_replaced_under_calls_and_none_fails(encryption: &str) {
    let Some((mesh, ca, _app)) = mesh(encryption, "6s") else {
        return;
    };
    let old = signer(&ca);
    let (count, failed) = under_calls(&mesh, || {
        cli(mesh.path(), "ca rotate --prepare");
        wait_until("both nodes trust both roots", || {
            told(&mesh.user) == 2 && told(&mesh.order) == 2
        });
        assert_eq!(kept(&mesh.user).issuer, old);
        cli(mesh.path(), "ca rotate --activate --force");
        let early = try_cli(mesh.path(), "ca rotate --finish");
        assert!(!early.status.success(), "{early:?}");
        let finished = holds_within(Duration::from_mins(1), || {
            try_cli(mesh.path(), "ca rotate --finish").status.success()
        });
        assert!(finished, "{}", ca.log());
        wait_until("both nodes have forgotten the old root", || {
            told(&mesh.user) == 1 && told(&mesh.order) == 1
        });
        for _ in 0..10 {
            mesh.call("/after", &[]).expect(200);
        }
    });
    assert_ne!(signer(&ca), old);
    for node in [&mesh.user, &mesh.order] {
        assert_eq!(kept(node).issuer, signer(&ca));
    }
    assert!(
        failed.is_empty(),
        "{} of {count} failed: {failed:?}",
        failed.len()
    );
    assert!(count > 10, "{count}");
}

with_both_encryptions!(a_root_is_replaced_under_calls_and_none_fails);

#[test]
fn a_node_that_slept_through_the_change_of_roots_finds_its_way() {
    let Some((mut mesh, ca, _app)) = mesh("mtls", "1h") else {
        return;
    };
    assert!(mesh.user.stop().success());
    cli(mesh.path(), "ca rotate --prepare");
    cli(mesh.path(), "ca rotate --activate --force");
    wait_until("the authority has heard", || {
        ca.ask("/health", &[]).json()["signer"] != Value::Null
            && ca
                .ask("/v1/bundle.pem", &[])
                .text()
                .matches("BEGIN")
                .count()
                == 2
    });
    mesh.user.start();
    let heard = holds_within(Duration::from_secs(10), || told(&mesh.user) == 2);
    assert!(heard, "{}\n{}", mesh.user.log(), ca.log());
    mesh.call("/hello", &[]).expect(200);
}

#[test]
fn a_node_shows_its_certificate_to_be_told_of_new_roots_at_once() {
    let Some((mesh, _ca, _app)) = mesh("mtls", "1h") else {
        return;
    };
    cli(mesh.path(), "ca rotate --prepare");
    wait_until("the node has heard", || told(&mesh.user) == 2);
    let bundle = || fs::read_to_string(mesh.user.dir().join("identity/bundle.json")).unwrap();
    let before = bundle();
    // Whoever shows none comes back after a minute.
    cli(mesh.path(), "ca rotate --activate --force");
    wait_until("the node has heard of the change", || bundle() != before);
}

#[test]
fn a_token_is_the_first_keys_alone() {
    let mesh = Mesh::new("mtls");
    let mut ca = Ca::serve(mesh.path(), "");
    let token = ca.token("user-service");
    let requests: Vec<_> = (0..8)
        .map(|number| ca.request(&format!("key-{number}")))
        .collect();
    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(|| ca.join(request, &token)))
            .collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let first: Vec<_> = answers
        .iter()
        .zip(&requests)
        .filter(|(answer, _)| answer.status == 200)
        .collect();
    let [(answer, request)] = first.as_slice() else {
        panic!("{answers:?}")
    };
    assert!(answers.iter().filter(|answer| answer.status == 401).count() == 7);
    let granted = facts(answer.json()["certificate"].as_str().unwrap());
    assert_eq!(granted.violation, None);
    assert_eq!(granted.uris, ["spiffe://example.org/user-service"]);

    // As after a power cut.
    ca.kill();
    ca.start();
    ca.join(&ca.request("late"), &token).expect(401);
    // The answer may have been lost: the same key gets another certificate, for itself.
    ca.join(request, &token).expect(200);
    assert_eq!(ca.audited("certificate issued"), 2);
    let verified = try_cli(mesh.path(), "audit verify ca/audit.log");
    assert!(verified.status.success(), "{verified:?}");
}

// threat 1
#[test]
fn who_has_no_right_to_a_certificate_gets_none() {
    let mesh = Mesh::new("mtls");
    let ca = Ca::serve(mesh.path(), "");
    let request = ca.request("key");

    let plain = raw(ca.port, b"GET /v1/bundle.pem HTTP/1.1\r\nhost: ca\r\n\r\n");
    assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
    assert_ne!(ca.ask("/health", &["--tls-max", "1.2"]).exit, 0);

    ca.sign(&request, &[]).expect(401);
    ca.join(&request, &format!("mesh-join-{}", "0".repeat(64)))
        .expect(401);
    ca.join(&request, "nonsense").expect(401);
    let short = cli(mesh.path(), "ca token --id user-service --ttl 1s");
    wait_until("the token has ended", || {
        let status = cli(mesh.path(), "ca status --json");
        let status: Value = serde_json::from_str(&status).unwrap();
        status["join_tokens"].as_array().unwrap().is_empty()
    });
    ca.join(&request, short.trim()).expect(401);

    for id in ["spiffe://example.com/user-service", "mesh-ca", "a b"] {
        let refused = Command::new(env!("CARGO_BIN_EXE_mesh-node"))
            .args(["ca", "token", "--id", id])
            .current_dir(mesh.path())
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(2), "{id}");
    }
    let reserved: Output = try_cli(mesh.path(), "ca issue mesh-ca");
    assert!(!reserved.status.success());
}

#[test]
fn requests_that_are_none_are_refused_and_cost_no_token() {
    let mesh = Mesh::new("mtls");
    let ca = Ca::serve(mesh.path(), "");
    let (request, token) = (ca.request("key"), ca.token("user-service"));
    let write = |name: &str, text: &str| {
        let path = mesh.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let pem = fs::read_to_string(&request).unwrap();
    // The last characters are the signature's.
    let at = pem
        .rfind("=\n")
        .unwrap_or_else(|| pem.rfind("\n-----END").unwrap())
        - 6;
    let other = if pem.as_bytes()[at] == b'A' { "B" } else { "A" };
    let mut forged = pem.clone();
    forged.replace_range(at..=at, other);

    let answer = ca.join(&write("forged", &forged), &token).expect(400);
    assert!(
        answer.text().contains("not signed with the key"),
        "{}",
        answer.text()
    );
    ca.join(&write("none", "nothing"), &token).expect(400);
    ca.join(&write("empty", ""), &token).expect(400);
    ca.join(&write("large", &"A".repeat(17_000)), &token)
        .expect(413);
    let bearer = format!("authorization: Bearer {token}");
    for query in ["lifetime=0", "lifetime=x", "id=admin"] {
        let body = format!("@{}", request.display());
        let args = ["--data-binary", &body, "-H", &bearer];
        ca.ask(&format!("/v1/sign?{query}"), &args).expect(400);
    }
    ca.ask("/v1/sign", &["-H", &bearer]).expect(405);
    ca.ask("/v1/sign/", &[]).expect(404);
    ca.ask("/health", &["-X", "POST"]).expect(405);
    // After all of this the token is as good as new.
    ca.join(&request, &token).expect(200);
}

#[test]
fn what_has_not_the_form_of_a_token_keeps_no_newcomer_out() {
    let mesh = Mesh::new("mtls");
    let ca = Ca::serve(mesh.path(), "");
    let root = mesh.path().join("ca/ca.crt");
    let url = ca.url("/v1/sign?number=[1-1000]");
    let told = curl_raw(&[
        "--cacert",
        root.to_str().unwrap(),
        "-X",
        "POST",
        "-H",
        "authorization: Bearer nonsense",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}\n",
        "--parallel",
        "--parallel-max",
        "20",
        &url,
    ]);
    assert_eq!(told.matches("401").count(), 1000, "{told}");
}

#[test]
fn a_certificate_gets_the_same_name_again_and_no_other() {
    let mesh = Mesh::new("mtls");
    let ca = Ca::serve(mesh.path(), "--lifetime 30m --max-lifetime 2h");
    cli(mesh.path(), "ca issue user-service --out own --lifetime 1h");
    let request = ca.request("key");
    let as_user = [
        "--cert",
        "own/user-service.crt",
        "--key",
        "own/user-service.key",
    ]
    .map(|part| part.replace("own/", &format!("{}/own/", mesh.path().display())));
    let as_user: Vec<&str> = as_user.iter().map(String::as_str).collect();

    let renewed = ca.sign(&request, &as_user).expect(200).json();
    let renewed = facts(renewed["certificate"].as_str().unwrap());
    assert_eq!(renewed.uris, ["spiffe://example.org/user-service"]);
    let life = |facts: &CertificateFacts| {
        let life = facts.not_after.duration_since(facts.not_before).unwrap();
        life.saturating_sub(mesh_auth::ca::BACKDATE)
    };
    assert_eq!(life(&renewed), Duration::from_mins(30));

    // More than the certificate had that was shown is cut.
    let body = format!("@{}", request.display());
    let mut args = vec!["--data-binary", &body];
    args.extend(&as_user);
    let long = ca.ask("/v1/sign?lifetime=999999", &args).expect(200).json();
    let long = facts(long["certificate"].as_str().unwrap());
    assert_eq!(life(&long), Duration::from_hours(1));
    // And what is more than is allowed to anybody.
    let bearer = format!("authorization: Bearer {}", ca.token("other"));
    let args = ["--data-binary", &body, "-H", &bearer];
    let long = ca.ask("/v1/sign?lifetime=999999", &args).expect(200).json();
    let long = facts(long["certificate"].as_str().unwrap());
    assert_eq!(life(&long), Duration::from_hours(2));

    let token = format!("authorization: Bearer {}", ca.token("admin"));
    let mut both = as_user.clone();
    both.extend(["-H", &token]);
    ca.sign(&request, &both).expect(400);

    // Whoever asks without end waits.
    let limited = (0..200)
        .map(|_| ca.sign(&request, &as_user))
        .find(|answer| answer.status != 200)
        .unwrap();
    assert_eq!(limited.status, 429);
    assert!(limited.header("retry-after").is_some());
}

// threat 1
#[test]
fn who_is_denied_gets_no_certificate_by_renewing_or_joining() {
    let mesh = Mesh::new("mtls");
    let ca = Ca::serve(mesh.path(), "");
    cli(mesh.path(), "ca issue user-service --out own");
    let request = ca.request("key");
    let file = |kind: &str| format!("{}/own/user-service.{kind}", mesh.path().display());
    let (certificate, key) = (file("crt"), file("key"));
    let renew = || ca.sign(&request, &["--cert", &certificate, "--key", &key]);
    let write = |text: &str| {
        let [new, denied] = ["ca/denied.new", "ca/denied"].map(|name| mesh.path().join(name));
        fs::write(&new, text).unwrap();
        fs::rename(&new, &denied).unwrap();
    };
    let reads = || ca.log().matches("roots read").count();
    let deny = |text: &str| {
        let before = reads();
        write(text);
        wait_until("the file is read", || reads() > before);
    };
    renew().expect(200);
    let shown = facts(&fs::read_to_string(&certificate).unwrap());
    for line in [
        &shown.fingerprint,
        "# left\nspiffe://example.org/user-service",
    ] {
        deny(line);
        renew().expect(403);
        deny("# nobody");
        renew().expect(200);
    }
    deny("spiffe://example.org/other");
    ca.join(&request, &ca.token("other")).expect(403);
    renew().expect(200);
    assert!(ca.audited("is denied certificates") > 0);
    // A line that names nobody changes nothing, and is told.
    write("nobody");
    wait_until("it is told", || ca.log().contains("line 1 is neither"));
    ca.join(&request, &ca.token("other")).expect(403);
}

#[test]
fn certificates_can_be_looked_at() {
    let mesh = Mesh::new("mtls");
    cli(
        mesh.path(),
        "ca issue user-service --out own --dns users.example",
    );
    let shown = cli(mesh.path(), "cert inspect own/user-service.crt");
    for part in [
        "spiffe://example.org/user-service",
        "users.example",
        "EC 256 bit",
        "good",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    let shown = cli(mesh.path(), "cert inspect own/ca.crt --json");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["certificates"][0]["is_ca"], true);
    cli(
        mesh.path(),
        "ca issue user-service --out short --lifetime 1s",
    );
    let inspect = || try_cli(mesh.path(), "cert inspect short/user-service.crt");
    wait_until("it has ended", || inspect().status.code() == Some(1));
    let ended = String::from_utf8(inspect().stdout).unwrap();
    assert!(ended.contains("no use: it has ended"), "{ended}");
    let key = try_cli(mesh.path(), "cert inspect own/user-service.key");
    assert_eq!(key.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&key.stderr).contains("PRIVATE KEY-----"));
}

// threat 2, threat 5
#[test]
fn certificates_that_are_not_valid_here_open_nothing() {
    let mesh = Mesh::new("mtls");
    let ca = Ca::serve(mesh.path(), "");
    let request = ca.request("key");
    for line in [
        "ca init --trust-domain example.com --dir other",
        "ca issue user-service --dir other --out of-other-domain",
        "ca init --trust-domain example.org --dir twin",
        "ca issue user-service --dir twin --out of-other-root",
        "ca issue user-service --out ended --lifetime 1s",
        "ca issue user-service --out good",
    ] {
        cli(mesh.path(), line);
    }
    let try_with = |folder: &str| {
        let file = |kind: &str| format!("{}/{folder}/user-service.{kind}", mesh.path().display());
        ca.sign(&request, &["--cert", &file("crt"), "--key", &file("key")])
    };
    wait_until("the certificate has ended", || {
        try_with("ended").status != 200
    });
    for folder in ["of-other-domain", "of-other-root", "ended"] {
        let answer = try_with(folder);
        assert_eq!(answer.status, 0, "{folder}: {answer:?}");
    }
    try_with("good").expect(200);
}

#[test]
fn a_node_tells_its_secrets_to_nobody_but_the_authority() {
    let mut mesh = Mesh::new("mtls");
    let Some(interpreter) = tool("python") else {
        return;
    };
    let ca = Ca::serve(mesh.path(), "");
    let token = ca.token("user-service");
    enrol(&mut mesh.user, &ca, Some(&token), "1h");
    // A workload with a good certificate of this very authority.
    cli(mesh.path(), "ca issue order-service --out impostor");
    let port = free_port();
    let folder = mesh.path().join("impostor");
    let mut command = python(
        &interpreter,
        "tls_listener.py",
        &[
            &port.to_string(),
            folder.join("order-service.crt").to_str().unwrap(),
            folder.join("order-service.key").to_str().unwrap(),
        ],
    );
    let impostor = Process::start(&mut command, mesh.path(), "impostor");
    wait_until("the impostor listens", || is_open(port));
    mesh.user.config["identity"]["ca_url"] = json!(format!("https://127.0.0.1:{port}"));
    mesh.user.config["identity"]["startup_timeout"] = json!("2s");
    mesh.user.spawn();
    assert!(!mesh.user.process().wait(Duration::from_secs(20)).success());
    let log = mesh.user.log();
    let why = "is spiffe://example.org/order-service, not spiffe://example.org/mesh-ca";
    assert!(log.contains(why), "{log}");
    assert!(impostor.out().contains("connected"));
    assert!(!impostor.out().contains("mesh-join"), "{}", impostor.out());
    // So the token is still good.
    ca.join(&ca.request("key"), &token).expect(200);
}

#[test]
fn the_bundle_says_when_it_has_changed() {
    let mesh = Mesh::new("mtls");
    let ca = Ca::serve(mesh.path(), "");
    let first = ca.ask("/v1/bundle.pem", &[]).expect(200);
    let tag = format!("if-none-match: {}", first.header("etag").unwrap());
    ca.ask("/v1/bundle.pem", &["-H", &tag]).expect(304);
    // Whoever has no certificate is not let wait.
    let wait = ["-H", tag.as_str(), "-H", "prefer: wait=50"];
    let hasty = [&wait[..], &["--max-time", "20"]].concat();
    ca.ask("/v1/bundle.pem", &hasty).expect(304);
    cli(mesh.path(), "ca issue user-service --out own");
    let file = |kind: &str| format!("{}/own/user-service.{kind}", mesh.path().display());
    let (certificate, key) = (file("crt"), file("key"));
    let changed = thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let own = ["--cert", &certificate, "--key", &key];
            ca.ask("/v1/bundle.pem", &[&wait[..], &own].concat())
        });
        cli(mesh.path(), "ca rotate --prepare");
        waits.join().unwrap()
    });
    assert_eq!(changed.expect(200).text().matches("BEGIN").count(), 2);
    // The same for SPIFFE servers of other domains.
    let published = ca.ask("/v1/bundle", &[]).expect(200);
    let domain = TrustDomain::parse("example.org").unwrap();
    let published = Bundle::from_json(domain.clone(), &published.body).unwrap();
    let pem = fs::read(mesh.path().join("ca/ca.crt")).unwrap();
    assert_eq!(
        published.roots(),
        Bundle::from_pem(domain, &pem).unwrap().roots()
    );
    assert_eq!(ca.ask("/health", &[]).expect(200).json()["status"], "ok");
}

// threat 61
#[test]
fn the_authority_ends_cleanly_and_keeps_its_key_to_itself() {
    let mesh = Mesh::new("mtls");
    let mut ca = Ca::serve(mesh.path(), "");
    ca.ask("/health", &[]).expect(200);
    let process = ca.process.as_mut().unwrap();
    process.terminate();
    assert!(process.wait(Duration::from_secs(20)).success());
    let key = mesh.path().join("ca/ca.key");
    assert!(!ca.log().contains("PRIVATE"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = try_cli(mesh.path(), "ca serve --listen 127.0.0.1:0");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("chmod 600"), "{said}");
}
